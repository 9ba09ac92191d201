// The network's words for people: what each state, outcome and fault is called, how it looks, and
// what it means in a sentence. The look is one of good, warn, bad, accent, or none.

const STATES = {
  active: ["good", "active", "It serves; its jobs are audited at the rate of its record."],
  probation: ["accent", "probation", "It serves; every job is audited until enough have passed."],
  away: ["", "away", "It has no lease now: it left, or its connection is lost."],
  inquiry: ["warn", "inquiry",
    "After an alarm: no jobs, and its pay waits, until what it has in escrow is audited."],
  suspended: ["warn", "suspended",
    "An inquiry proved nothing against it. It rests without jobs, then begins anew in probation."],
  convicted: ["bad", "convicted", "Proven: its escrow went back to clients, its key is banned."],
};

const OUTCOMES = {
  passed: ["good", "passed", "Auditors computed the same answer."],
  failed: ["bad", "failed", "Two auditors who agree with each other found the answer wrong."],
  unequal: ["bad", "unequal", "Two auditors of its exact class have the same bits, and it has others."],
  withheld: ["bad", "withheld", "It did not show what it had signed for."],
  unproven: ["warn", "unproven", "Found wrong by one whom no other confirms; the client has its money back."],
  unaudited: ["", "unaudited", "Nobody could say."],
  convicted: ["bad", "convicted", "Its node was convicted while the audit ran."],
  outvoted: ["bad", "outvoted", "Its node lost held pay for calling honest answers wrong."],
  undrawn: ["", "not drawn", "The lottery did not draw it for an audit."],
  open: ["accent", "audit runs", "It was drawn; its audit has not ended."],
  inquiry: ["warn", "inquiry", "Audited because its node is under inquiry."],
};

const JOBS = {
  booked: ["", "booked", "Its receipt is booked; its round of the lottery is not drawn yet."],
  held: ["accent", "pay held", "Not drawn; the price is in escrow for a while, until enough was earned since or epochs closed."],
  drawn: ["accent", "under audit", "The price is in escrow until the verdict."],
  released: ["good", "paid", "The price was paid out."],
  refunded: ["bad", "refunded", "The client has its money back."],
};

const FOUND = {
  good: ["good", "good", "This replay computed the same."],
  doubtful: ["warn", "doubtful", "This replay differs more than noise should."],
  bad: ["bad", "wrong", "By this replay the answer is not the model's."],
};

const EPOCHS = {
  posted: ["good", "on chain", "Its root is on the chain to stay."],
  queued: ["warn", "waiting", "Closed; its root is not on the chain to stay yet."],
  voided: ["bad", "voided", "The contract voided it."],
};

const FAULTS = {
  commit_failed: "the database did not commit; nothing is acknowledged until it was read again",
  chain_not_read: "it does not know which block to vote on",
  not_posted: "the chain did not take an epoch or a round; it is tried again",
  queue_full: "more comes than it can handle; peers are told to come again",
};

const CONVICTIONS = {
  quorum: (node) => `Auditors who agree with each other found ${node.disproved} of its answers `
    + "wrong. Its escrow went back to its clients, and its key is banned.",
  equivocation: () => "It signed two different receipts for one ticket. Its escrow went back to "
    + "its clients, and its key is banned.",
};

const of = (table) => (word) => {
  const [look, text, means] = table[word] ?? ["", word, ""];
  return { look, text, means };
};

export const nodeState = of(STATES);
export const outcome = of(OUTCOMES);
export const jobState = of(JOBS);
export const finding = of(FOUND);
export const epochState = of(EPOCHS);

export function fault(code) {
  return FAULTS[code] ?? code;
}

// Why a node has the standing it has, in a sentence.
export function whyStanding(node) {
  return CONVICTIONS[node.convicted_for]?.(node) ?? nodeState(node.standing).means;
}

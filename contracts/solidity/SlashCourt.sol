// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {IEd25519Verifier, INodeRegistry, Signature} from "./Interfaces.sol";
import {Jury} from "./Jury.sol";
import {Statements} from "./Statements.sol";

/// @title Who loses a bond, and how it is decided. Nobody is in charge.
/// @notice Rules:
/// - two different statements of one key about one thing are proof by themselves: its bond goes at
///   once, and for that thing once only;
/// - any other accusation waits `window` seconds. Nobody disputes it: the key is slashed. Its owner
///   disputes it: seven owners of active nodes, neither the parties nor theirs, are drawn by a block
///   that comes later; at least four votes and a majority rule, anything else dismisses;
/// - accuser and owner stake the same deposit. Who loses pays the jurors that voted and the other
///   side; a dismissed case pays all back. Deposits in, payments out: nothing is left over;
/// - what was ruled is not tried again.
contract SlashCourt {
    using SafeERC20 for IERC20;

    struct Config {
        IEd25519Verifier verifier;
        IERC20 token;
        INodeRegistry registry;
        uint32 window; // seconds to dispute
        uint32 votePeriod; // seconds from the draw
        uint32 drawDelay; // blocks from the dispute to the one that draws
        uint96 deposit; // micro-credits
        uint96 penaltyMax; // what an accusation may ask for
        uint96 equivocationPenalty;
        uint16 reporterBps; // of what is slashed, to who proved or accused
        uint16 jurorBps; // of the lost deposit, to the jurors that voted
    }

    enum State {
        None,
        Accused,
        Disputed, // waits for its jury
        Voting,
        Guilty,
        Acquitted,
        Dismissed
    }

    struct Case {
        bytes32 key;
        bytes32 evidence; // a hash: what it is of is published off chain
        address accuser;
        uint96 amount;
        address owner; // who disputed
        uint40 until; // seconds: end of the window, then of the vote
        uint40 drawBlock;
        State state;
        uint8 guilty; // votes
        uint8 innocent;
    }

    uint256 public constant QUORUM = 4;
    uint256 private constant WHOLE_BPS = 10_000;
    uint256 private constant BLOCKHASHES = 256; // how far back the EVM knows a block's hash

    IEd25519Verifier public immutable verifier;
    IERC20 public immutable token;
    INodeRegistry public immutable registry;
    uint32 public immutable window;
    uint32 public immutable votePeriod;
    uint32 public immutable drawDelay;
    uint96 public immutable deposit;
    uint96 public immutable penaltyMax;
    uint96 public immutable equivocationPenalty;
    uint16 public immutable reporterBps;
    uint16 public immutable jurorBps;

    uint256 public caseCount;
    mapping(uint256 => Case) public cases; // from 1
    mapping(bytes32 => bool) public punished; // by key, kind and subject
    mapping(bytes32 => bool) public barred; // by key and evidence: open, or ruled
    mapping(uint256 => Jury.Seat[]) private _seats;

    event Equivocated(
        bytes32 indexed key,
        Statements.Kind kind,
        bytes32 indexed subject,
        address indexed reporter,
        uint96 taken
    );
    event Accused(
        uint256 indexed id,
        bytes32 indexed key,
        address indexed accuser,
        uint96 amount,
        bytes32 evidence,
        uint256 until
    );
    event Disputed(uint256 indexed id, address indexed owner, uint256 drawBlock);
    event DrawMissed(uint256 indexed id, uint256 drawBlock);
    event JuryDrawn(uint256 indexed id, address[] jurors, uint256 until);
    event JurorVoted(uint256 indexed id, address indexed juror, bool guilty);
    event Closed(uint256 indexed id, State state, uint96 taken);

    error BadConfig();
    error NotStatements();
    error OtherSubject();
    error SameStatement();
    error AlreadyPunished();
    error BadSignature(uint256 which);
    error NothingAtStake(bytes32 key);
    error BadAmount(uint96 most, uint96 given);
    error AlreadyTried(bytes32 key, bytes32 evidence);
    error WrongState(uint256 id, State state);
    error NotOwner(bytes32 key, address caller);
    error TooEarly(uint256 from);
    error TooLate(uint256 until);
    error NoSeat(uint256 id, address caller);

    constructor(Config memory config) {
        bool sound = config.window != 0 && config.votePeriod != 0 && config.drawDelay != 0
            && config.drawDelay < BLOCKHASHES && config.deposit != 0 && config.penaltyMax != 0
            && config.equivocationPenalty != 0 && config.reporterBps < WHOLE_BPS
            && config.jurorBps <= WHOLE_BPS;
        // Who is accused at the end of its bond's time must not be gone before the jury rules.
        sound = sound && config.registry.unbonding() > uint256(config.window) + config.votePeriod;
        if (!sound) revert BadConfig();
        verifier = config.verifier;
        token = config.token;
        registry = config.registry;
        window = config.window;
        votePeriod = config.votePeriod;
        drawDelay = config.drawDelay;
        deposit = config.deposit;
        penaltyMax = config.penaltyMax;
        equivocationPenalty = config.equivocationPenalty;
        reporterBps = config.reporterBps;
        jurorBps = config.jurorBps;
    }

    // ---- proof by two signatures ----

    /// Slashes `key` for two different statements about one subject. `a` and `b` are the bytes that
    /// are signed, domain included.
    function equivocation(
        bytes32 key,
        bytes calldata a,
        Signature calldata signatureOfA,
        bytes calldata b,
        Signature calldata signatureOfB
    ) external {
        (Statements.Kind kind, bytes32 subject) = Statements.subjectOf(a);
        bytes32 id = keccak256(abi.encode(key, kind, subject));
        _mustDiffer(a, b, kind, subject);
        if (punished[id]) revert AlreadyPunished();
        if (!verifier.verify(key, a, signatureOfA)) revert BadSignature(0);
        if (!verifier.verify(key, b, signatureOfB)) revert BadSignature(1);
        // A key without a bond pays nothing: should it have one later, this still counts.
        punished[id] = registry.bondOf(key) != 0;
        uint96 taken = registry.slash(key, equivocationPenalty, msg.sender, reporterBps, id);
        emit Equivocated(key, kind, subject, msg.sender, taken);
    }

    function _mustDiffer(
        bytes calldata a,
        bytes calldata b,
        Statements.Kind kind,
        bytes32 subject
    ) private pure {
        if (kind == Statements.Kind.None) revert NotStatements();
        (Statements.Kind otherKind, bytes32 otherSubject) = Statements.subjectOf(b);
        if (otherKind == Statements.Kind.None) revert NotStatements();
        if (kind != otherKind || subject != otherSubject) revert OtherSubject();
        if (keccak256(a) == keccak256(b)) revert SameStatement();
    }

    // ---- accusation ----

    /// Asks for `amount` of the bond of `key`. The sender's deposit is at stake.
    function accuse(bytes32 key, bytes32 evidence, uint96 amount) external returns (uint256 id) {
        if (amount == 0 || amount > penaltyMax) revert BadAmount(penaltyMax, amount);
        if (registry.bondOf(key) == 0) revert NothingAtStake(key);
        bytes32 matter = keccak256(abi.encode(key, evidence));
        if (barred[matter]) revert AlreadyTried(key, evidence);
        barred[matter] = true;
        id = ++caseCount;
        Case storage opened = cases[id];
        opened.key = key;
        opened.evidence = evidence;
        opened.accuser = msg.sender;
        opened.amount = amount;
        opened.until = uint40(block.timestamp + window);
        opened.state = State.Accused;
        emit Accused(id, key, msg.sender, amount, evidence, opened.until);
        token.safeTransferFrom(msg.sender, address(this), deposit);
    }

    /// The owner of the accused key denies it, with a deposit, before the window ends.
    function dispute(uint256 id) external {
        Case storage open = _in(id, State.Accused);
        if (block.timestamp >= open.until) revert TooLate(open.until);
        if (registry.ownerOf(open.key) != msg.sender) revert NotOwner(open.key, msg.sender);
        open.owner = msg.sender;
        open.drawBlock = uint40(block.number + drawDelay);
        open.state = State.Disputed;
        emit Disputed(id, msg.sender, open.drawBlock);
        token.safeTransferFrom(msg.sender, address(this), deposit);
    }

    /// Slashes a key that nobody defended. Anybody may say so once the window is over.
    function close(uint256 id) external {
        Case storage open = _in(id, State.Accused);
        if (block.timestamp < open.until) revert TooEarly(open.until);
        open.state = State.Guilty;
        uint96 taken = _slash(open);
        emit Closed(id, State.Guilty, taken);
        token.safeTransfer(open.accuser, deposit);
    }

    // ---- the jury ----

    /// Draws the jury by the hash of the case's draw block. Anybody may once that block is past; 256
    /// blocks later its hash is gone, and this sets a new draw block instead.
    function draw(uint256 id) external {
        Case storage open = _in(id, State.Disputed);
        uint256 drawBlock = open.drawBlock;
        if (block.number <= drawBlock) revert TooEarly(drawBlock + 1);
        bytes32 hash = blockhash(drawBlock);
        if (hash == bytes32(0)) {
            open.drawBlock = uint40(block.number + drawDelay);
            emit DrawMissed(id, open.drawBlock);
            return;
        }
        bytes32 seed = keccak256(abi.encode(hash, address(this), id));
        address[] memory jurors = Jury.draw(registry, seed, open.accuser, open.owner);
        if (jurors.length < QUORUM) {
            _dismiss(id, open);
            return;
        }
        for (uint256 i = 0; i < jurors.length; ++i) _seats[id].push(Jury.Seat(jurors[i], false));
        open.until = uint40(block.timestamp + votePeriod);
        open.state = State.Voting;
        emit JuryDrawn(id, jurors, open.until);
    }

    /// One juror's vote.
    function vote(uint256 id, bool guilty) external {
        Case storage open = _in(id, State.Voting);
        if (block.timestamp >= open.until) revert TooLate(open.until);
        if (!Jury.take(_seats[id], msg.sender)) revert NoSeat(id, msg.sender);
        if (guilty) ++open.guilty;
        else ++open.innocent;
        emit JurorVoted(id, msg.sender, guilty);
    }

    /// Ends a case whose vote is over, or in which all have voted. Anybody may.
    function rule(uint256 id) external {
        Case storage open = _in(id, State.Voting);
        Jury.Seat[] storage seats = _seats[id];
        uint256 votes = uint256(open.guilty) + open.innocent;
        if (votes < seats.length && block.timestamp < open.until) revert TooEarly(open.until);
        if (votes < QUORUM || open.guilty == open.innocent) {
            _dismiss(id, open);
            return;
        }
        bool guilty = open.guilty > open.innocent;
        open.state = guilty ? State.Guilty : State.Acquitted;
        uint96 taken = guilty ? _slash(open) : 0;
        emit Closed(id, open.state, taken);
        _settle(seats, votes, guilty ? open.accuser : open.owner);
    }

    // ---- reading ----

    function jurorsOf(uint256 id) external view returns (Jury.Seat[] memory) {
        return _seats[id];
    }

    // ---- within ----

    function _in(uint256 id, State state) private view returns (Case storage open) {
        open = cases[id];
        if (open.state != state) revert WrongState(id, open.state);
    }

    function _slash(Case storage open) private returns (uint96) {
        return
            registry.slash(open.key, open.amount, open.accuser, reporterBps, open.evidence);
    }

    /// As if it had never been: both deposits back, and the same evidence may be brought again.
    function _dismiss(uint256 id, Case storage open) private {
        open.state = State.Dismissed;
        barred[keccak256(abi.encode(open.key, open.evidence))] = false;
        emit Closed(id, State.Dismissed, 0);
        token.safeTransfer(open.accuser, deposit);
        token.safeTransfer(open.owner, deposit);
    }

    /// Both deposits to the jurors that voted and the winner, who gets what division leaves.
    function _settle(Jury.Seat[] storage seats, uint256 votes, address winner) private {
        uint256 fee = uint256(deposit) * jurorBps / WHOLE_BPS / votes;
        for (uint256 i = 0; i < seats.length; ++i) {
            if (seats[i].voted && fee != 0) token.safeTransfer(seats[i].juror, fee);
        }
        token.safeTransfer(winner, 2 * uint256(deposit) - fee * votes);
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {
    TimelockController
} from "@openzeppelin/contracts/governance/TimelockController.sol";
import {ICreditLedger, ICreditToken, INodeRegistry, Leaf, Place} from "./Interfaces.sol";

/// @title Those who earned credit decide, and what they decide waits in the timelock.
/// @notice Rules:
/// - a vote's weight is what its leaf earned in the last `span` final epochs before the proposal, so
///   nothing that is bought, lent or earned after the proposal counts; weight is linear, so splitting
///   an account gains nothing; the treasury's leaf (role 5) has no vote;
/// - each (account, role) votes once, by whoever its account names as payee when it votes;
/// - more weight for than against, and for + abstained of at least `quorumBps` of all that was earned
///   in the span, passes;
/// - a proposal calls only contracts of the list, which is fixed, and the ledger of the day, but never
///   this contract or the timelock; what passed is queued within one more `period`, waits in the
///   timelock, and then anybody executes it. Nobody can cancel it, and nobody has another way.
contract Governance {
    struct Config {
        ICreditToken token; // its minter is the ledger of the day
        INodeRegistry registry;
        TimelockController timelock;
        uint32 span; // epochs
        uint32 delay; // seconds from the proposal to the vote
        uint32 period; // seconds of the vote
        uint16 quorumBps; // of what was earned in the span
        uint16 proposerBps; // of it, what who proposes must have earned
    }

    enum State {
        None,
        Pending,
        Active,
        Defeated,
        Succeeded,
        Queued,
        Executed,
        Expired
    }

    struct Actions {
        address[] targets;
        bytes[] payloads; // what each is called with
        string description;
    }

    struct Proposal {
        ICreditLedger ledger;
        uint32 epochNow; // weights are what was earned after epochThen, up to epochNow
        uint32 epochThen;
        uint40 start; // seconds
        bytes32 operation; // its id in the timelock: the hash of what it does
        uint128 earned; // by all, in the span
        uint128 yes;
        uint128 no;
        uint128 abstained;
    }

    uint256 public constant ACTIONS_MAX = 16;
    uint256 public constant PAYLOAD_BYTES_MAX = 4_096;
    uint256 public constant DESCRIPTION_BYTES_MAX = 1_024;
    uint256 public constant TARGETS_MAX = 8;
    uint8 public constant AGAINST = 0;
    uint8 public constant FOR = 1;
    uint8 public constant ABSTAIN = 2;
    uint8 private constant LAST_VOTING_ROLE = 4;
    uint32 private constant SETTLE_AT_PROPOSAL = 64;
    uint256 private constant WHOLE_BPS = 10_000;

    ICreditToken public immutable token;
    INodeRegistry public immutable registry;
    TimelockController public immutable timelock;
    uint32 public immutable span;
    uint32 public immutable delay;
    uint32 public immutable period;
    uint16 public immutable quorumBps;
    uint16 public immutable proposerBps;

    uint256 public proposalCount;
    mapping(uint256 => Proposal) public proposals; // from 1
    mapping(address => bool) public isTarget;
    mapping(uint256 => mapping(bytes32 => mapping(uint8 => bool))) public hasVoted;

    event TargetListed(address indexed target);
    event Proposed(
        uint256 indexed id,
        address indexed proposer,
        uint32 epochNow,
        uint32 epochThen,
        address[] targets,
        bytes[] payloads,
        string description
    );
    event Voted(
        uint256 indexed id,
        bytes32 indexed account,
        uint8 role,
        address indexed voter,
        uint8 support,
        uint128 weight
    );
    event Queued(uint256 indexed id, uint256 executableFrom);

    error BadConfig();
    error BadTarget(address target);
    error BadActions();
    error NoFinalEpoch();
    error UnsettledEpochs(uint32 known);
    error NotPayee(bytes32 account, address caller);
    error NoVoteForRole(uint8 role);
    error NotInTree(uint32 epoch, uint256 index);
    error OtherLeaf();
    error NoWeight();
    error TooLittleToPropose(uint128 least, uint128 weight);
    error WrongState(uint256 id, State state);
    error BadSupport(uint8 support);
    error AlreadyVoted(bytes32 account, uint8 role);
    error OtherActions(bytes32 operation);

    constructor(Config memory config, address[] memory targets) {
        bool sound = config.span != 0 && config.period != 0 && config.quorumBps != 0
            && config.quorumBps <= WHOLE_BPS && config.proposerBps <= WHOLE_BPS
            && targets.length != 0 && targets.length <= TARGETS_MAX;
        if (!sound) revert BadConfig();
        token = config.token;
        registry = config.registry;
        timelock = config.timelock;
        span = config.span;
        delay = config.delay;
        period = config.period;
        quorumBps = config.quorumBps;
        proposerBps = config.proposerBps;
        for (uint256 i = 0; i < targets.length; ++i) {
            address target = targets[i];
            if (target == address(0) || isTarget[target] || _isBarred(target)) {
                revert BadTarget(target);
            }
            isTarget[target] = true;
            emit TargetListed(target);
        }
    }

    /// Puts `actions` to the vote. `current` and `past` are as for `vote`, of the proposer's own leaf.
    function propose(Actions calldata actions, Place calldata current, Place calldata past)
        external
        returns (uint256 id)
    {
        _check(actions);
        id = ++proposalCount;
        Proposal storage proposal = proposals[id];
        _fixSpan(proposal);
        uint128 weight = _weight(proposal, current, past);
        uint128 least = uint128(uint256(proposal.earned) * proposerBps / WHOLE_BPS);
        if (weight < least) revert TooLittleToPropose(least, weight);
        proposal.start = uint40(block.timestamp) + delay;
        proposal.operation = _operation(id, actions.targets, actions.payloads);
        emit Proposed(
            id,
            msg.sender,
            proposal.epochNow,
            proposal.epochThen,
            actions.targets,
            actions.payloads,
            actions.description
        );
    }

    /// Votes with one leaf. `current` is its place in the proposal's epochNow, `past` in epochThen; of
    /// an account that was not yet in the tree then, or if epochThen is 0, `past` is not looked at.
    function vote(uint256 id, uint8 support, Place calldata current, Place calldata past) external {
        State now_ = state(id);
        if (now_ != State.Active) revert WrongState(id, now_);
        Proposal storage proposal = proposals[id];
        Leaf calldata leaf = current.leaf;
        if (hasVoted[id][leaf.account][leaf.role]) revert AlreadyVoted(leaf.account, leaf.role);
        uint128 weight = _weight(proposal, current, past);
        hasVoted[id][leaf.account][leaf.role] = true;
        if (support == FOR) proposal.yes += weight;
        else if (support == AGAINST) proposal.no += weight;
        else if (support == ABSTAIN) proposal.abstained += weight;
        else revert BadSupport(support);
        emit Voted(id, leaf.account, leaf.role, msg.sender, support, weight);
    }

    /// Hands what passed to the timelock. Anybody may.
    function queue(uint256 id, address[] calldata targets, bytes[] calldata payloads) external {
        State now_ = state(id);
        if (now_ != State.Succeeded) revert WrongState(id, now_);
        _mustBe(id, targets, payloads);
        uint256 wait = timelock.getMinDelay();
        emit Queued(id, block.timestamp + wait);
        uint256[] memory values = new uint256[](targets.length);
        timelock.scheduleBatch(targets, values, payloads, bytes32(0), bytes32(id), wait);
    }

    /// Executes what waited long enough. Anybody may; the timelock refuses if it is too early.
    function execute(uint256 id, address[] calldata targets, bytes[] calldata payloads) external {
        State now_ = state(id);
        if (now_ != State.Queued) revert WrongState(id, now_);
        _mustBe(id, targets, payloads);
        uint256[] memory values = new uint256[](targets.length);
        timelock.executeBatch(targets, values, payloads, bytes32(0), bytes32(id));
    }

    // ---- reading ----

    function state(uint256 id) public view returns (State) {
        Proposal storage proposal = proposals[id];
        if (proposal.operation == bytes32(0)) return State.None;
        uint256 end = uint256(proposal.start) + period;
        if (block.timestamp < proposal.start) return State.Pending;
        if (block.timestamp < end) return State.Active;
        if (!_passed(proposal)) return State.Defeated;
        if (timelock.isOperationDone(proposal.operation)) return State.Executed;
        if (timelock.isOperation(proposal.operation)) return State.Queued;
        return block.timestamp < end + period ? State.Succeeded : State.Expired;
    }

    /// The weight of for and abstained that a proposal needs.
    function quorumOf(uint256 id) external view returns (uint256) {
        return _quorum(proposals[id]);
    }

    /// When a queued proposal can be executed, in seconds; 0: it is not queued; 1: it was executed.
    function executableFrom(uint256 id) external view returns (uint256) {
        return timelock.getTimestamp(proposals[id].operation);
    }

    // ---- within ----

    function _check(Actions calldata actions) private view {
        uint256 count = actions.targets.length;
        bool sound = count != 0 && count <= ACTIONS_MAX && count == actions.payloads.length
            && bytes(actions.description).length <= DESCRIPTION_BYTES_MAX;
        if (!sound) revert BadActions();
        for (uint256 i = 0; i < count; ++i) {
            if (!_mayCall(actions.targets[i])) revert BadTarget(actions.targets[i]);
            if (actions.payloads[i].length > PAYLOAD_BYTES_MAX) revert BadActions();
        }
    }

    function _mayCall(address target) private view returns (bool) {
        return isTarget[target] || (target == token.minter() && !_isBarred(target));
    }

    /// Who could call the timelock through itself could give its roles away.
    function _isBarred(address target) private view returns (bool) {
        return target == address(timelock) || target == address(this);
    }

    /// The newest final epoch, the one `span` before it, and what was earned between.
    function _fixSpan(Proposal storage proposal) private {
        ICreditLedger ledger = ICreditLedger(token.minter());
        ledger.settle(SETTLE_AT_PROPOSAL);
        uint32 current = ledger.finalHead();
        if (current == 0) revert NoFinalEpoch();
        // With an older epoch who proposes could choose who has weight.
        if (ledger.isFinal(current + 1)) revert UnsettledEpochs(current);
        uint32 past = current > span ? current - span : 0;
        proposal.ledger = ledger;
        proposal.epochNow = current;
        proposal.epochThen = past;
        uint128 before = past == 0 ? 0 : ledger.totalOf(past);
        proposal.earned = ledger.totalOf(current) - before;
    }

    /// What the leaf earned in the span, if the sender may vote with it. Reverts otherwise.
    function _weight(Proposal storage proposal, Place calldata current, Place calldata past)
        private
        view
        returns (uint128 weight)
    {
        Leaf calldata leaf = current.leaf;
        if (leaf.role > LAST_VOTING_ROLE) revert NoVoteForRole(leaf.role);
        if (registry.payeeOf(leaf.account) != msg.sender) {
            revert NotPayee(leaf.account, msg.sender);
        }
        ICreditLedger ledger = proposal.ledger;
        _mustHold(ledger, proposal.epochNow, current);
        weight = leaf.cumulative;
        uint32 epoch = proposal.epochThen;
        if (epoch != 0) {
            (,,, uint32 leaves) = ledger.epochs(epoch);
            // A leaf keeps its index for ever, so one beyond the tree of then was not yet there.
            if (current.index < leaves) {
                bool same = past.index == current.index && past.leaf.account == leaf.account
                    && past.leaf.role == leaf.role;
                if (!same) revert OtherLeaf();
                _mustHold(ledger, epoch, past);
                weight -= past.leaf.cumulative;
            }
        }
        if (weight == 0) revert NoWeight();
    }

    function _mustHold(ICreditLedger ledger, uint32 epoch, Place calldata place) private view {
        if (!ledger.verifyLeaf(epoch, place.leaf, place.index, place.proof)) {
            revert NotInTree(epoch, place.index);
        }
    }

    function _passed(Proposal storage proposal) private view returns (bool) {
        uint256 present = uint256(proposal.yes) + proposal.abstained;
        return proposal.yes > proposal.no && present >= _quorum(proposal);
    }

    /// Rounded up: a quorum is never less than its share.
    function _quorum(Proposal storage proposal) private view returns (uint256) {
        return (uint256(proposal.earned) * quorumBps + WHOLE_BPS - 1) / WHOLE_BPS;
    }

    function _operation(uint256 id, address[] calldata targets, bytes[] calldata payloads)
        private
        view
        returns (bytes32)
    {
        uint256[] memory values = new uint256[](targets.length);
        return timelock.hashOperationBatch(targets, values, payloads, bytes32(0), bytes32(id));
    }

    function _mustBe(uint256 id, address[] calldata targets, bytes[] calldata payloads)
        private
        view
    {
        bytes32 operation = _operation(id, targets, payloads);
        if (operation != proposals[id].operation) revert OtherActions(operation);
    }
}

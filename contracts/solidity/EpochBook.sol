// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ICreditLedger, INodeRegistry, Leaf, Place} from "./Interfaces.sol";
import {SumTree} from "./SumTree.sol";

/// @title The epochs of the credit ledger: what was posted, and what of it is final.
/// @notice Rules: epochs come in order, and end in order: none is final before the one before it; a
/// final epoch stays for ever; `leaves` and `totalCum` never fall, and index i belongs to one
/// (account, role) for ever; an epoch becomes final when enough active nodes said that they hold
/// its data, the window has passed since then, and no demand for a leaf is open.
abstract contract EpochBook is ICreditLedger {
    struct Config {
        address poster;
        bytes32 posterKey; // Ed25519; its bond, if it has one, answers for fraud
        address token;
        address registry;
        address timelock;
        uint32 window; // seconds in which an epoch can be challenged
        uint32 demandSeconds; // in which a demanded leaf must be shown
        uint96 demandBond; // micro-credits
        uint16 rewardBps; // of a slashed bond, to who proved the fraud
        address previous; // the ledger before this one; 0: none
        uint32 baseEpoch; // its epoch to go on from, which must be final there
    }

    struct Header {
        bytes32 root; // of the account tree
        uint128 totalCum; // its sum: all credit ever booked
        uint64 jobs; // booked in this epoch
        uint32 leaves; // accounts in the tree
        bytes32 dataHash; // sha256 of the published leaf file
        bytes32 policy; // sha256 of the rules that priced the epoch
    }

    /// Two storage slots.
    struct Epoch {
        bytes32 root;
        uint128 totalCum;
        uint40 postedAt; // seconds, of the block
        uint32 finalAfter; // seconds from then on; UNSET until enough hold the data
        uint32 leaves;
        uint8 holders; // nodes that said they hold the data
        uint8 required; // of them, as set when it was posted
        uint8 openDemands;
    }

    uint8 public constant HOLDERS_MAX = 64;
    uint32 private constant SETTLE_AT_POST = 2;
    uint32 private constant UNSET = type(uint32).max;

    address public immutable poster;
    bytes32 public immutable posterKey;
    address public immutable token;
    address public immutable registry;
    address public immutable timelock;
    uint32 public immutable window;
    uint32 public immutable demandSeconds;
    uint96 public immutable demandBond;
    uint16 public immutable rewardBps;
    address public immutable previous;
    uint32 public immutable baseEpoch;

    uint32 public head; // the newest epoch; 0 before the first
    uint32 public finalHead; // the newest that is known to be final; `settle` moves it
    uint40 public voidedAt; // seconds; when an epoch was last voided
    uint8 public holdersRequired; // of epochs posted from now on
    mapping(uint32 => Epoch) internal _epochs;
    mapping(bytes32 => bool) private _attested;

    event EpochPosted(
        uint32 indexed epoch,
        bytes32 root,
        uint128 totalCum,
        uint64 jobs,
        uint32 leaves,
        bytes32 dataHash,
        bytes32 policy
    );
    event EpochsFinal(uint32 indexed newest);
    event Attested(uint32 indexed epoch, bytes32 indexed key);
    event HoldersRequiredSet(uint8 holders);

    error ZeroPoster();
    error BadConfig();
    error NotPoster(address caller);
    error NotTimelock(address caller);
    error EpochOutOfOrder(uint32 expected, uint32 given);
    error JustVoided();
    error ZeroRoot();
    error TotalLowered(uint128 previous, uint128 given);
    error LeavesLowered(uint32 previous, uint32 given);
    error SumWithoutLeaves();
    error UnknownEpoch(uint32 epoch);
    error EpochIsFinal(uint32 epoch);
    error NotFinal(uint32 epoch);
    error NotInTree(uint32 epoch, uint256 index);
    error NotActiveOwner(bytes32 key, address caller);
    error AlreadyAttested(uint32 epoch, bytes32 key);
    error TooManyHolders(uint8 most, uint8 given);

    constructor(Config memory config) {
        if (config.poster == address(0)) revert ZeroPoster();
        if (config.window == 0 || config.window == UNSET || config.rewardBps > 10_000) {
            revert BadConfig();
        }
        // What the last answer before a quorum shows can be challenged as long as any other.
        if (config.demandSeconds > config.window) revert BadConfig();
        poster = config.poster;
        posterKey = config.posterKey;
        token = config.token;
        registry = config.registry;
        timelock = config.timelock;
        window = config.window;
        demandSeconds = config.demandSeconds;
        demandBond = config.demandBond;
        rewardBps = config.rewardBps;
        previous = config.previous;
        baseEpoch = config.baseEpoch;
        if (config.previous == address(0)) {
            if (config.baseEpoch != 0) revert BadConfig();
            return;
        }
        ICreditLedger old = ICreditLedger(config.previous);
        if (!old.isFinal(config.baseEpoch)) revert NotFinal(config.baseEpoch);
        Epoch storage base = _epochs[config.baseEpoch];
        uint64 postedAt;
        (base.root, base.totalCum, postedAt, base.leaves) = old.epochs(config.baseEpoch);
        base.postedAt = uint40(postedAt);
        head = finalHead = config.baseEpoch;
    }

    // ---- epochs ----

    /// Records the next epoch. A retry of a posted epoch reverts, so sending twice cannot book twice.
    function post(uint32 epoch, Header calldata header) external {
        if (msg.sender != poster) revert NotPoster(msg.sender);
        uint32 expected = head + 1;
        if (epoch != expected) revert EpochOutOfOrder(expected, epoch);
        // An epoch and when it was posted name one header: attestations and demands rest on it.
        if (block.timestamp <= voidedAt) revert JustVoided();
        // An unset root reads as zero; were zero ever posted, absence would count as proof.
        if (header.root == bytes32(0)) revert ZeroRoot();
        if (header.leaves == 0 && header.totalCum != 0) revert SumWithoutLeaves();
        _mustGrow(_epochs[epoch - 1], header);
        uint8 required = holdersRequired;
        _epochs[epoch] = Epoch({
            root: header.root,
            totalCum: header.totalCum,
            postedAt: uint40(block.timestamp),
            finalAfter: required == 0 ? window : UNSET,
            leaves: header.leaves,
            holders: 0,
            required: required,
            openDemands: 0
        });
        head = epoch;
        settle(SETTLE_AT_POST);
        emit EpochPosted(
            epoch,
            header.root,
            header.totalCum,
            header.jobs,
            header.leaves,
            header.dataHash,
            header.policy
        );
    }

    /// Says that `key`'s owner holds the data of the epoch's dataHash. Enough such nodes start the
    /// window of an epoch that requires them.
    function attest(uint32 epoch, bytes32 key) external {
        Epoch storage posted = _open(epoch);
        INodeRegistry nodes = INodeRegistry(registry);
        bool active = nodes.stateOf(key) == INodeRegistry.State.Active;
        if (!active || nodes.ownerOf(key) != msg.sender) revert NotActiveOwner(key, msg.sender);
        bytes32 id = keccak256(abi.encode(epoch, posted.postedAt, key));
        if (_attested[id]) revert AlreadyAttested(epoch, key);
        _attested[id] = true;
        if (posted.holders < HOLDERS_MAX) ++posted.holders;
        emit Attested(epoch, key);
        _startWindow(posted);
    }

    /// Starts the window of an epoch that was posted when more holders were required than now.
    function recount(uint32 epoch) external {
        _startWindow(_open(epoch));
    }

    /// How many active nodes must hold the data of an epoch. Raising it does not bind epochs that are
    /// posted; lowering it does (`recount`), or one number too high would stop all claims.
    function setHoldersRequired(uint8 holders) external {
        if (msg.sender != timelock) revert NotTimelock(msg.sender);
        if (holders > HOLDERS_MAX) revert TooManyHolders(HOLDERS_MAX, holders);
        holdersRequired = holders;
        emit HoldersRequiredSet(holders);
    }

    /// Looks at up to `count` epochs after the last final one. Anybody may; posts and claims do.
    function settle(uint32 count) public {
        uint32 last = finalHead;
        uint32 newest = last;
        uint32 end = head - last > count ? last + count : head;
        while (newest < end && _isReady(_epochs[newest + 1])) ++newest;
        if (newest == last) return;
        finalHead = newest;
        emit EpochsFinal(newest);
    }

    // ---- reading ----

    function isFinal(uint32 epoch) public view returns (bool) {
        if (epoch < baseEpoch) return ICreditLedger(previous).isFinal(epoch);
        if (epoch == 0 || epoch > head) return false;
        // The oldest one that is not known to be final holds up the others; if it does not, the newest
        // is the likeliest not to be ready. So an open epoch costs a look or two, however many wait.
        uint32 last = finalHead;
        if (epoch > last && !_isReady(_epochs[last + 1])) return false;
        for (uint32 next = epoch; next > last + 1; --next) {
            if (!_isReady(_epochs[next])) return false;
        }
        return true;
    }

    function epochs(uint32 epoch)
        external
        view
        returns (bytes32 root, uint128 totalCum, uint64 postedAt, uint32 leaves)
    {
        if (epoch < baseEpoch) return ICreditLedger(previous).epochs(epoch);
        if (epoch > head) return (0, 0, 0, 0);
        Epoch storage posted = _epochs[epoch];
        return (posted.root, posted.totalCum, posted.postedAt, posted.leaves);
    }

    /// How far the epoch is: `finalFrom` in seconds, 0 while holders are missing; then the epochs
    /// before it and its open demands decide.
    function progress(uint32 epoch)
        external
        view
        returns (uint256 finalFrom, uint8 holders, uint8 required, uint8 openDemands)
    {
        Epoch storage posted = _posted(epoch);
        uint32 wait = posted.finalAfter;
        finalFrom = wait == UNSET ? 0 : uint256(posted.postedAt) + wait;
        return (finalFrom, posted.holders, posted.required, posted.openDemands);
    }

    function totalOf(uint32 epoch) external view returns (uint128) {
        if (epoch < baseEpoch) return ICreditLedger(previous).totalOf(epoch);
        return epoch > head ? 0 : _epochs[epoch].totalCum;
    }

    /// Whether `leaf` stands at `index` of the epoch's tree. `proof` is 48 bytes a level, leaf to root.
    function verifyLeaf(uint32 epoch, Leaf calldata leaf, uint256 index, bytes calldata proof)
        external
        view
        returns (bool)
    {
        if (epoch < baseEpoch) {
            return ICreditLedger(previous).verifyLeaf(epoch, leaf, index, proof);
        }
        return _hasLeaf(_posted(epoch), leaf, index, proof);
    }

    // ---- within ----

    function _mustGrow(Epoch storage before, Header calldata header) private view {
        if (header.totalCum < before.totalCum) {
            revert TotalLowered(before.totalCum, header.totalCum);
        }
        if (header.leaves < before.leaves) revert LeavesLowered(before.leaves, header.leaves);
    }

    /// An epoch of this ledger that was not voided.
    function _posted(uint32 epoch) internal view returns (Epoch storage posted) {
        posted = _epochs[epoch];
        if (epoch > head || posted.root == bytes32(0)) revert UnknownEpoch(epoch);
    }

    /// One that can still be voided.
    function _open(uint32 epoch) internal view returns (Epoch storage posted) {
        posted = _posted(epoch);
        if (isFinal(epoch)) revert EpochIsFinal(epoch);
    }

    /// Its own conditions of being final; the epochs before it have theirs.
    function _isReady(Epoch storage posted) private view returns (bool) {
        uint32 wait = posted.finalAfter;
        if (posted.openDemands != 0 || wait == UNSET) return false;
        return block.timestamp >= uint256(posted.postedAt) + wait;
    }

    function _startWindow(Epoch storage posted) private {
        uint8 required = posted.required < holdersRequired ? posted.required : holdersRequired;
        if (posted.finalAfter != UNSET || posted.holders < required) return;
        posted.finalAfter = uint32(block.timestamp - posted.postedAt) + window;
    }

    function _mustHold(Epoch storage posted, uint32 epoch, Place calldata place) internal view {
        if (!_hasLeaf(posted, place.leaf, place.index, place.proof)) {
            revert NotInTree(epoch, place.index);
        }
    }

    function _hasLeaf(
        Epoch storage posted,
        Leaf calldata leaf,
        uint256 index,
        bytes calldata proof
    ) internal view returns (bool) {
        return index < posted.leaves
            && _isRoot(posted, SumTree.hashLeaf(leaf), leaf.cumulative, index, proof);
    }

    function _isRoot(
        Epoch storage posted,
        bytes32 hash,
        uint256 sum,
        uint256 index,
        bytes calldata proof
    ) internal view returns (bool) {
        if (!SumTree.isDepth(proof.length, posted.leaves)) return false;
        (bool ok, bytes32 root, uint256 total) = SumTree.fold(hash, sum, index, proof);
        return ok && root == posted.root && total == posted.totalCum;
    }
}

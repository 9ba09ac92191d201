// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {EpochBook} from "./EpochBook.sol";
import {INodeRegistry, Leaf, Place} from "./Interfaces.sol";
import {Line, SumTree} from "./SumTree.sol";

/// @title How an epoch of the credit ledger is voided before it is final.
/// @notice Rules: a proof of fraud is one transaction, and no arguments void an honest epoch; voiding
/// an epoch voids all after it; the poster's bond, if it has one, is slashed, and a share of it is
/// the challenger's; data that is kept back can be demanded, leaf by leaf, for a bond.
abstract contract Challenges is EpochBook {
    using SafeERC20 for IERC20;

    struct Demand {
        address by;
        uint40 deadline;
    }

    /// A line in the line tree of the leaf at `place`.
    struct Booking {
        uint32 epoch;
        Place place;
        Line line;
        uint256 index;
        bytes proof;
    }

    /// A node, leaf or line as it is hashed, where it stands, and the sum its parent says it has.
    struct Piece {
        bytes text;
        uint128 claimed;
        uint256 index;
        bytes proof;
    }

    enum Fraud {
        Step,
        Omission,
        Beyond,
        Duplicate,
        DoubleLine,
        LineSum,
        NodeSum,
        Withheld
    }

    uint8 public constant DEMANDS_MAX = 16; // open ones of an epoch
    // Several accounts may share in one job in the roles from publisher to data.
    uint8 private constant FIRST_SHARED_ROLE = 1;
    uint8 private constant LAST_SHARED_ROLE = 3;

    mapping(bytes32 => Demand) public demands;

    event EpochVoided(uint32 indexed epoch, Fraud fraud, address indexed by, uint96 slashed);
    event Demanded(uint32 indexed epoch, uint32 indexed index, address by, uint40 deadline);
    event Answered(uint32 indexed epoch, uint32 indexed index, address by);
    event DemandReturned(uint32 indexed epoch, uint32 indexed index, address by);

    error LineNotInLeaf();
    error NotAPiece();
    error NoFraud();
    error TooManyDemands(uint32 epoch);
    error AlreadyDemanded(uint32 epoch, uint32 index);
    error NoDemand(uint32 epoch, uint256 index);
    error TooEarly(uint256 from);
    error NotVoid(uint32 epoch);

    // ---- proofs of fraud: one transaction each, while the epoch is not final ----

    /// The leaf at one index of this epoch and the one before: another account or role, or a
    /// cumulative that is not the one before plus the epoch's credit. Where the epoch before has no
    /// such index, `before` is not read, and was nothing.
    function challengeStep(uint32 epoch, Place calldata before, Place calldata now_) external {
        _mustHold(_open(epoch), epoch, now_);
        uint256 start = 0;
        bool moved = false;
        if (now_.index < _epochs[epoch - 1].leaves) {
            if (before.index != now_.index) revert NoFraud();
            _mustHold(_epochs[epoch - 1], epoch - 1, before);
            moved = !_sameOwner(before.leaf, now_.leaf);
            start = before.leaf.cumulative;
        }
        if (!moved && start + now_.leaf.epochCredit == now_.leaf.cumulative) revert NoFraud();
        _void(epoch, Fraud.Step);
    }

    /// Padding at an index that must have a leaf.
    function challengeOmission(uint32 epoch, uint256 index, bytes calldata proof) external {
        Epoch storage posted = _open(epoch);
        if (index >= posted.leaves) revert NoFraud();
        if (!_isRoot(posted, SumTree.PADDING, 0, index, proof)) revert NotInTree(epoch, index);
        _void(epoch, Fraud.Omission);
    }

    /// An amount where no leaf may be: on the path of the last leaf (hash and amount given) a sibling
    /// to the right is not worth 0.
    function challengeBeyond(uint32 epoch, bytes32 hash, uint128 amount, bytes calldata proof)
        external
    {
        Epoch storage posted = _open(epoch);
        uint32 leaves = posted.leaves;
        if (leaves == 0) revert NoFraud();
        if (!_isRoot(posted, hash, amount, leaves - 1, proof)) revert NotInTree(epoch, leaves - 1);
        if (!SumTree.hasSumBeyond(leaves, proof)) revert NoFraud();
        _void(epoch, Fraud.Beyond);
    }

    /// One account and role at two indices, one of them new in this epoch. (Two old ones were the
    /// fraud of an earlier epoch; this one had to carry them on.)
    function challengeDuplicate(uint32 epoch, Place calldata a, Place calldata b) external {
        Epoch storage posted = _open(epoch);
        _mustHold(posted, epoch, a);
        _mustHold(posted, epoch, b);
        uint32 old = _epochs[epoch - 1].leaves;
        bool isNew = a.index >= old || b.index >= old;
        if (a.index == b.index || !isNew || !_sameOwner(a.leaf, b.leaf)) revert NoFraud();
        _void(epoch, Fraud.Duplicate);
    }

    /// One job or audit booked twice in one role, in one epoch or two; the later one is voided.
    function challengeDoubleLine(Booking calldata a, Booking calldata b) external {
        if (a.epoch > b.epoch) revert NoFraud();
        _mustHold(_posted(a.epoch), a.epoch, a.place);
        _mustHold(_open(b.epoch), b.epoch, b.place);
        _mustBook(a);
        _mustBook(b);
        if (_samePlace(a, b) || !_sameWork(a, b)) revert NoFraud();
        _void(b.epoch, Fraud.DoubleLine);
    }

    /// A piece of a leaf's line tree that does not add up: it has another sum than its parent says,
    /// or its path leads to the leaf's receiptsRoot with another sum than its epochCredit.
    function challengeLineSum(uint32 epoch, Place calldata place, Piece calldata piece) external {
        _mustHold(_open(epoch), epoch, place);
        if (!_isWrong(piece, place.leaf.receiptsRoot, place.leaf.epochCredit)) revert NoFraud();
        _void(epoch, Fraud.LineSum);
    }

    /// A piece of the account tree that does not add up.
    function challengeNodeSum(uint32 epoch, Piece calldata piece) external {
        Epoch storage posted = _open(epoch);
        if (!_isWrong(piece, posted.root, posted.totalCum)) revert NoFraud();
        _void(epoch, Fraud.NodeSum);
    }

    // ---- demands: data that is kept back cannot be challenged ----

    /// Asks for the leaf at `index`, with a bond that an answer costs. An epoch with an open demand
    /// does not become final, nor does it before what an answer showed could be challenged: who
    /// fills all places to keep others out keeps the epoch open.
    function demand(uint32 epoch, uint32 index) external {
        Epoch storage posted = _open(epoch);
        if (index >= posted.leaves) revert NotInTree(epoch, index);
        if (posted.openDemands == DEMANDS_MAX) revert TooManyDemands(epoch);
        Demand storage made = demands[demandId(epoch, index, posted.postedAt)];
        if (made.by != address(0)) revert AlreadyDemanded(epoch, index);
        made.by = msg.sender;
        made.deadline = uint40(block.timestamp + demandSeconds);
        ++posted.openDemands;
        emit Demanded(epoch, index, msg.sender, made.deadline);
        IERC20(token).safeTransferFrom(msg.sender, address(this), demandBond);
    }

    /// Shows a demanded leaf; also late, unless the demand has expired. The bond is the poster's.
    function answer(uint32 epoch, Place calldata place) external {
        Epoch storage posted = _posted(epoch);
        bytes32 id = demandId(epoch, place.index, posted.postedAt);
        if (demands[id].by == address(0)) revert NoDemand(epoch, place.index);
        _mustHold(posted, epoch, place);
        delete demands[id];
        --posted.openDemands;
        uint32 after_ = uint32(block.timestamp - posted.postedAt) + demandSeconds;
        if (after_ > posted.finalAfter) posted.finalAfter = after_;
        emit Answered(epoch, uint32(place.index), msg.sender);
        IERC20(token).safeTransfer(poster, demandBond);
    }

    /// Voids the epoch of a demand that nobody answered in time, and gives its bond back.
    function expire(uint32 epoch, uint32 index) external {
        bytes32 id = demandId(epoch, index, _open(epoch).postedAt);
        Demand memory made = demands[id];
        if (made.by == address(0)) revert NoDemand(epoch, index);
        if (block.timestamp <= made.deadline) revert TooEarly(uint256(made.deadline) + 1);
        _void(epoch, Fraud.Withheld);
        _return(id, made.by, epoch, index);
    }

    /// Gives the bond of a demand back whose epoch, posted at `postedAt`, was voided.
    function refund(uint32 epoch, uint32 index, uint40 postedAt) external {
        bytes32 id = demandId(epoch, index, postedAt);
        address by = demands[id].by;
        if (by == address(0)) revert NoDemand(epoch, index);
        if (epoch <= head && _epochs[epoch].postedAt == postedAt) revert NotVoid(epoch);
        _return(id, by, epoch, index);
    }

    function demandId(uint32 epoch, uint256 index, uint40 postedAt) public pure returns (bytes32) {
        return keccak256(abi.encode(epoch, index, postedAt));
    }

    // ---- within ----

    function _void(uint32 epoch, Fraud fraud) private {
        bytes32 root = _epochs[epoch].root;
        head = epoch - 1;
        voidedAt = uint40(block.timestamp);
        uint96 taken = 0;
        if (fraud != Fraud.Withheld) {
            taken = INodeRegistry(registry)
                .slash(posterKey, type(uint96).max, msg.sender, rewardBps, root);
        }
        emit EpochVoided(epoch, fraud, msg.sender, taken);
    }

    function _return(bytes32 id, address by, uint32 epoch, uint32 index) private {
        delete demands[id];
        emit DemandReturned(epoch, index, by);
        IERC20(token).safeTransfer(by, demandBond);
    }

    function _mustBook(Booking calldata booking) private view {
        Line calldata line = booking.line;
        (bool ok, bytes32 root,) =
            SumTree.fold(SumTree.hashLine(line), line.amount, booking.index, booking.proof);
        if (!ok || root != booking.place.leaf.receiptsRoot) revert LineNotInLeaf();
    }

    function _sameOwner(Leaf calldata a, Leaf calldata b) private pure returns (bool) {
        return a.account == b.account && a.role == b.role;
    }

    function _samePlace(Booking calldata a, Booking calldata b) private pure returns (bool) {
        return a.epoch == b.epoch && a.place.index == b.place.index && a.index == b.index
            && a.proof.length == b.proof.length;
    }

    /// The same kind and id in the same role; in a role that several share, also of one account.
    function _sameWork(Booking calldata a, Booking calldata b) private pure returns (bool) {
        if (a.line.kind != b.line.kind || a.line.id != b.line.id) return false;
        uint8 role = a.place.leaf.role;
        bool shared = role >= FIRST_SHARED_ROLE && role <= LAST_SHARED_ROLE;
        return role == b.place.leaf.role && (!shared || a.place.leaf.account == b.place.leaf.account);
    }

    /// Whether the piece, which must lead to `root`, contradicts its parent's sum or `total`. The
    /// root has no parent: nothing but `total` says what it is worth.
    function _isWrong(Piece calldata piece, bytes32 root, uint256 total)
        private
        view
        returns (bool)
    {
        (bool known, uint256 sum) = SumTree.sumOf(piece.text);
        if (!known) revert NotAPiece();
        bool alone = piece.proof.length == 0;
        (bool ok, bytes32 reached, uint256 whole) = SumTree.fold(
            sha256(piece.text), alone ? total : piece.claimed, piece.index, piece.proof
        );
        if (!ok || reached != root) revert NotAPiece();
        return alone ? sum != total : sum != piece.claimed || whole != total;
    }
}

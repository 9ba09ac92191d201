// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Challenges} from "./Challenges.sol";
import {EpochBook} from "./EpochBook.sol";
import {ICreditLedger, ICreditToken, INodeRegistry, Leaf} from "./Interfaces.sol";

/// @title One root per epoch of everything every account has earned, and its payment in tokens.
/// @notice The root is that of a Merkle-SUM tree over SHA-256 (protocol/spec/credit.md). The cost of an
/// epoch does not depend on its number of jobs. Nothing here can be upgraded or paused. Rules:
/// a claim pays the difference between what its leaf has earned and what was claimed for it, from a
/// final epoch alone, to whom its account named; in any order; never more in all than the highest
/// total claimed against. A ledger that goes on from another one takes over what was claimed there.
contract CreditLedger is Challenges {
    uint32 private constant SETTLE_AT_CLAIM = 64;

    uint128 private _totalClaimed;
    uint128 private _highestTotal;
    mapping(bytes32 => mapping(uint8 => uint128)) private _claimed;

    event Claimed(
        bytes32 indexed account,
        uint8 indexed role,
        address indexed payee,
        uint32 epoch,
        uint128 amount,
        uint128 cumulative
    );

    error NothingToClaim(uint128 claimed);
    error NoPayee(bytes32 account);
    error Insolvent(uint256 claimed, uint128 total);

    constructor(Config memory config) EpochBook(config) {}

    /// Pays what the leaf has earned beyond what was claimed for it to whom its account named. Any
    /// final epoch serves, in any order; anybody may send it.
    function claim(uint32 epoch, Leaf calldata leaf, uint256 index, bytes calldata proof) external {
        if (epoch > finalHead) {
            settle(SETTLE_AT_CLAIM);
            if (epoch > finalHead) revert NotFinal(epoch);
        }
        Epoch storage posted = _epochs[epoch];
        if (!_hasLeaf(posted, leaf, index, proof)) revert NotInTree(epoch, index);
        uint128 before = claimed(leaf.account, leaf.role);
        if (leaf.cumulative <= before) revert NothingToClaim(before);
        address payee = INodeRegistry(registry).payeeOf(leaf.account);
        if (payee == address(0)) revert NoPayee(leaf.account);
        uint128 amount = leaf.cumulative - before;
        _claimed[leaf.account][leaf.role] = leaf.cumulative;
        _addClaimed(amount, posted.totalCum);
        emit Claimed(leaf.account, leaf.role, payee, epoch, amount, leaf.cumulative);
        ICreditToken(token).mint(payee, amount);
    }

    // ---- reading ----

    function claimed(bytes32 account, uint8 role) public view returns (uint128) {
        uint128 here = _claimed[account][role];
        if (here != 0 || previous == address(0)) return here;
        return ICreditLedger(previous).claimed(account, role);
    }

    function totalClaimed() public view returns (uint128) {
        if (_isFresh()) return ICreditLedger(previous).totalClaimed();
        return _totalClaimed;
    }

    function highestTotal() public view returns (uint128) {
        if (_isFresh()) return ICreditLedger(previous).highestTotal();
        return _highestTotal;
    }

    // ---- within ----

    /// No claim here yet: the ledger before this one may still pay until the token names this one.
    function _isFresh() private view returns (bool) {
        return _highestTotal == 0 && previous != address(0);
    }

    /// A late claim on an old epoch is as good as any, so the bound is the highest total, not its own.
    function _addClaimed(uint128 amount, uint128 total) private {
        uint128 highest = highestTotal();
        if (total > highest) highest = total;
        uint256 sum = uint256(totalClaimed()) + amount;
        if (sum > highest) revert Insolvent(sum, highest);
        _totalClaimed = uint128(sum);
        _highestTotal = highest;
    }
}

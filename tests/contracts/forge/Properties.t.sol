// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {CreditLedger} from "../../../contracts/solidity/CreditLedger.sol";
import {CreditToken} from "../../../contracts/solidity/CreditToken.sol";
import {EpochBook} from "../../../contracts/solidity/EpochBook.sol";
import {Leaf, Signature} from "../../../contracts/solidity/Interfaces.sol";
import {NodeRegistry} from "../../../contracts/solidity/NodeRegistry.sol";
import {SumTree} from "../../../contracts/solidity/SumTree.sol";
import {EasyVerifier, vm} from "./Cheats.sol";

/// What halmos proves for all arguments: `check_` functions must not fail for any.
contract Properties {
    address private constant LEDGER = address(0x1ed6e1);
    address private constant POSTER = address(0x905);
    bytes32 private constant KEY = bytes32(uint256(0xEE));
    uint96 private constant BOND = 1_000;

    CreditToken private _token;
    NodeRegistry private _registry;
    CreditLedger private _ledger;

    function setUp() public {
        _token = new CreditToken(LEDGER, address(this));
        _registry = new NodeRegistry(
            NodeRegistry.Config({
                verifier: address(new EasyVerifier()),
                token: address(_token),
                court: address(this),
                timelock: address(this),
                probation: 100,
                unbonding: 3_000,
                minBond: 100,
                minBondLow: 10,
                minBondHigh: 1_000
            })
        );
        _ledger = new CreditLedger(
            EpochBook.Config({
                poster: POSTER,
                posterKey: KEY,
                token: address(_token),
                registry: address(_registry),
                timelock: address(this),
                window: 1_000,
                demandSeconds: 300,
                demandBond: 50,
                rewardBps: 4_000,
                previous: address(0),
                baseEpoch: 0
            })
        );
        vm.prank(LEDGER);
        _token.mint(address(this), BOND);
        _token.approve(address(_registry), BOND);
        _registry.register(KEY, BOND, Signature(0, bytes32(uint256(1)), 0, 0));
    }

    /// One depth only is accepted for a number of leaves, and it is the least that holds them.
    function check_depth_is_the_least(uint256 length, uint256 other, uint32 leaves) public pure {
        vm.assume(length <= 40 * 48 && other <= 40 * 48);
        if (!SumTree.isDepth(length, leaves)) return;
        uint256 depth = length / 48;
        assert(length == depth * 48 && leaves <= 1 << depth);
        assert(depth == 0 || leaves > 1 << (depth - 1));
        if (SumTree.isDepth(other, leaves)) assert(other == length);
    }

    function check_only_the_minter_mints(address caller, address to, uint256 amount) public {
        vm.assume(caller != LEDGER);
        uint256 supply = _token.totalSupply();
        vm.prank(caller);
        (bool ok,) = address(_token).call(abi.encodeCall(_token.mint, (to, amount)));
        assert(!ok && _token.totalSupply() == supply);
    }

    /// Nobody but the court and the ledger of the day; the rest of a bond stays, what is taken is
    /// either burned or the reporter's.
    function check_slash_conserves(address caller, uint96 amount, uint16 bps) public {
        address reporter = address(0xF1);
        uint256 supply = _token.totalSupply();
        vm.prank(caller);
        try _registry.slash(KEY, amount, reporter, bps, 0) returns (uint96 taken) {
            assert(caller == address(this) || caller == LEDGER);
            assert(taken <= amount && _registry.bondOf(KEY) == BOND - taken);
            assert(_token.balanceOf(address(_registry)) == BOND - taken);
            uint256 reward = _token.balanceOf(reporter);
            assert(reward <= taken && _token.totalSupply() == supply - taken + reward);
        } catch {
            assert(_registry.bondOf(KEY) == BOND && _token.totalSupply() == supply);
        }
    }

    /// Only the poster posts, only the next epoch, never a zero root, and sums never fall.
    function check_post(address caller, uint32 epoch, EpochBook.Header calldata header) public {
        vm.prank(POSTER);
        _ledger.post(1, EpochBook.Header(bytes32(uint256(1)), 1_000, 1, 3, 0, 0));
        vm.prank(caller);
        (bool ok,) = address(_ledger).call(abi.encodeCall(_ledger.post, (epoch, header)));
        if (!ok) {
            assert(_ledger.head() == 1);
            return;
        }
        assert(caller == POSTER && epoch == 2 && _ledger.head() == 2);
        assert(header.root != 0 && header.totalCum >= 1_000 && header.leaves >= 3);
        assert(!_ledger.isFinal(2));
    }

    /// What is before its window is not claimable, whatever the leaf.
    function check_no_claim_before_the_window(Leaf calldata leaf, uint256 index, uint32 time) public {
        vm.assume(time < 1_000);
        vm.prank(POSTER);
        _ledger.post(1, EpochBook.Header(bytes32(uint256(1)), 1_000, 1, 1, 0, 0));
        vm.warp(block.timestamp + time);
        (bool ok,) = address(_ledger).call(abi.encodeCall(_ledger.claim, (1, leaf, index, "")));
        assert(!ok);
    }
}

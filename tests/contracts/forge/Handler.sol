// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {CreditLedger} from "../../../contracts/solidity/CreditLedger.sol";
import {CreditToken} from "../../../contracts/solidity/CreditToken.sol";
import {EpochBook} from "../../../contracts/solidity/EpochBook.sol";
import {INodeRegistry, Leaf, Place, Signature} from "../../../contracts/solidity/Interfaces.sol";
import {NodeRegistry} from "../../../contracts/solidity/NodeRegistry.sol";
import {Books} from "./Books.sol";
import {EasyVerifier, vm} from "./Cheats.sol";

/// Poster, watcher, contributors, node owner, court and timelock in one: what forge calls at random.
/// The watcher proves every fraud before time passes; whatever else happens, happens in between.
contract Handler is Books {
    uint96 private constant BOND = 100;
    uint96 private constant DEMAND_BOND = 50;
    uint32 private constant WINDOW = 1_000;
    bytes32 private constant POSTER_KEY = bytes32(uint256(0xEE));

    CreditToken public token;
    NodeRegistry public registry;
    CreditLedger public ledger;

    uint128 public paid; // by claims
    uint128 public burned; // of slashed bonds
    uint32 public openDemands;
    uint32 public highestPosted;
    uint32 public fraud; // the oldest epoch that is one, not yet proven; 0: none
    string public broken; // what a call found that must not be
    uint32 private _final;
    uint128[4] private _claimed;

    constructor() {
        vm.warp(1_800_000_000);
        token = new CreditToken(_creation(4), address(this));
        registry = new NodeRegistry(
            NodeRegistry.Config({
                verifier: address(new EasyVerifier()),
                token: address(token),
                court: address(this),
                timelock: address(this),
                probation: 100,
                unbonding: 3_000,
                minBond: BOND,
                minBondLow: 10,
                minBondHigh: 1_000
            })
        );
        ledger = new CreditLedger(_config());
        require(address(ledger) == token.minter(), "wired");
        token.approve(address(registry), type(uint256).max);
        token.approve(address(ledger), type(uint256).max);
        for (uint256 i = 0; i < ACCOUNTS; ++i) {
            registry.bind(accountOf(i), address(this), _good());
        }
    }

    /// What is final stays so, and claims only rise.
    modifier watched() {
        _;
        uint32 settled = ledger.finalHead();
        if (settled < _final) broken = "a final epoch was taken back";
        _final = settled;
        for (uint256 i = 0; i < ACCOUNTS; ++i) {
            uint128 claimed = ledger.claimed(accountOf(i), 0);
            if (claimed < _claimed[i]) broken = "a claim was taken back";
            _claimed[i] = claimed;
        }
    }

    // ---- what forge calls ----

    /// Honest or of one kind of fraud. On top of an epoch that is a fraud honest ones are void, too.
    function post(uint32[4] calldata credits, uint8 leaves, uint8 kind, uint8 who) external watched {
        uint32 epoch = ledger.head() + 1;
        uint32 before = leavesOf(epoch - 1);
        uint32 count = before + leaves % 2;
        if (epoch == 1 && count == 0) count = 1;
        if (count > ACCOUNTS) count = uint32(ACCOUNTS);
        delete _leaves[epoch];
        for (uint256 i = 0; i < count; ++i) {
            uint128 start = i < before ? leafOf(epoch - 1, i).cumulative : 0;
            uint128 sum = start + credits[i];
            _leaves[epoch].push(Leaf(accountOf(i), 0, sum, credits[i], bytes32(0)));
        }
        bool bad = kind % 4 == 1 && _cheat(epoch, who % count, kind / 4);
        (bytes32 root, uint128 total,) = treeOf(epoch, 0);
        EpochBook.Header memory header = EpochBook.Header(root, total, 1, count, 0, 0);
        try ledger.post(epoch, header) {
            if (epoch > highestPosted) highestPosted = epoch;
            if (bad && fraud == 0) fraud = epoch;
        } catch {
            // Lowered sums, and posts in the second of a voiding, are refused.
            if (!bad && block.timestamp > ledger.voidedAt()) broken = "an honest post is refused";
        }
    }

    function proveFraud() public {
        if (fraud == 0) return;
        uint32 epoch = fraud;
        uint96 bond = registry.bondOf(POSTER_KEY);
        for (uint256 i = 0; i < leavesOf(epoch); ++i) {
            Place memory before;
            if (i < leavesOf(epoch - 1)) before = placeOf(epoch - 1, i);
            try ledger.challengeStep(epoch, before, placeOf(epoch, i)) {
                fraud = 0;
                burned += bond - uint96(uint256(bond) * 4_000 / 10_000);
                return;
            } catch {}
        }
        broken = "a fraud cannot be proven";
    }

    /// Whatever is challenged with honest leaves stays.
    function challengeHonest(uint32 epoch, uint8 a, uint8 b) external watched {
        epoch = _some(epoch);
        if (epoch == 0 || (fraud != 0 && epoch >= fraud)) return;
        uint256 i = a % leavesOf(epoch);
        uint256 j = b % leavesOf(epoch);
        Place memory before;
        if (epoch > 1 && j < leavesOf(epoch - 1)) before = placeOf(epoch - 1, j);
        try ledger.challengeStep(epoch, before, placeOf(epoch, i)) {
            broken = "an honest epoch is voided";
        } catch {}
        try ledger.challengeDuplicate(epoch, placeOf(epoch, i), placeOf(epoch, j)) {
            broken = "an honest epoch is voided";
        } catch {}
        try ledger.challengeOmission(epoch, a % 8, placeOf(epoch, i).proof) {
            broken = "an honest epoch is voided";
        } catch {}
    }

    function claim(uint32 epoch, uint8 who, uint128 forged) external watched {
        epoch = _some(epoch);
        if (epoch == 0) return;
        uint256 index = who % leavesOf(epoch);
        Place memory place = placeOf(epoch, index);
        if (forged % 8 == 0) place.leaf.cumulative = forged;
        bool same = place.leaf.cumulative == leafOf(epoch, index).cumulative;
        uint128 before = ledger.claimed(accountOf(index), 0);
        bool due = same && ledger.isFinal(epoch) && place.leaf.cumulative > before
            && epoch <= ledger.finalHead() + 64; // a claim looks at no more epochs than that
        try ledger.claim(epoch, place.leaf, index, place.proof) {
            if (!due) broken = "a claim that is not due is paid";
            paid += place.leaf.cumulative - before;
        } catch {
            if (due) broken = "a due claim is refused";
        }
    }

    function pass(uint16 time) external watched {
        if (fraud != 0) proveFraud();
        vm.warp(block.timestamp + time % (2 * WINDOW));
    }

    function settle(uint8 count) external watched {
        ledger.settle(count);
    }

    function require_(uint8 holders) external watched {
        ledger.setHoldersRequired(holders % 3);
    }

    function attest(uint32 epoch) external watched {
        try ledger.attest(_some(epoch), POSTER_KEY) {} catch {}
    }

    function recount(uint32 epoch) external watched {
        try ledger.recount(_some(epoch)) {} catch {}
    }

    function demand(uint32 epoch, uint8 index) external watched {
        try ledger.demand(_some(epoch), index % uint8(ACCOUNTS)) {
            ++openDemands;
        } catch {}
    }

    function answer(uint32 epoch, uint8 index) external watched {
        epoch = _some(epoch);
        if (epoch == 0) return;
        try ledger.answer(epoch, placeOf(epoch, index % leavesOf(epoch))) {
            --openDemands;
        } catch {}
    }

    /// A demand of an honest epoch that stays open voids it, too; only open fraud is forgotten.
    function expire(uint32 epoch, uint8 index) external watched {
        epoch = _some(epoch);
        try ledger.expire(epoch, index % uint8(ACCOUNTS)) {
            --openDemands;
            if (fraud >= epoch) fraud = 0;
        } catch {}
    }

    function register(bytes32 evidence) external watched {
        if (token.balanceOf(address(this)) < BOND) return;
        if (uint256(evidence) % 4 == 0) vm.warp(block.timestamp + (fraud == 0 ? 100 : 0));
        INodeRegistry.State state = registry.stateOf(POSTER_KEY);
        if (state == INodeRegistry.State.None) {
            registry.register(POSTER_KEY, BOND, _good());
        } else if (state == INodeRegistry.State.Probation) {
            try registry.activate(POSTER_KEY) {} catch {}
        }
    }

    function slash(uint96 amount, uint16 bps) external watched {
        bps %= 10_001;
        uint96 taken = registry.slash(POSTER_KEY, amount % (2 * BOND), address(this), bps, 0);
        burned += uint128(taken - uint256(taken) * bps / 10_000);
        if (registry.bondOf(POSTER_KEY) != 0) return;
        try registry.register(POSTER_KEY, BOND, _good()) {} catch {}
    }

    // ---- within ----

    /// A cumulative that does not follow, or another's account. Whether it is a fraud at all.
    function _cheat(uint32 epoch, uint256 index, uint8 kind) private returns (bool) {
        Leaf storage leaf = _leaves[epoch][index];
        if (kind % 2 == 0) {
            leaf.cumulative += 7;
            return true;
        }
        if (index >= leavesOf(epoch - 1)) return false;
        leaf.account = bytes32(uint256(0xBAD));
        return true;
    }

    /// One of the epochs up to the head; 0 if there is none.
    function _some(uint32 epoch) private view returns (uint32) {
        uint32 head = ledger.head();
        return head == 0 ? 0 : 1 + epoch % head;
    }

    function _config() private view returns (EpochBook.Config memory) {
        return EpochBook.Config({
            poster: address(this),
            posterKey: POSTER_KEY,
            token: address(token),
            registry: address(registry),
            timelock: address(this),
            window: WINDOW,
            demandSeconds: 300,
            demandBond: DEMAND_BOND,
            rewardBps: 4_000,
            previous: address(0),
            baseEpoch: 0
        });
    }

    /// Where this contract's creation number `nonce` is put.
    function _creation(uint8 nonce) private view returns (address) {
        bytes memory named = abi.encodePacked(hex"d694", address(this), nonce);
        return address(uint160(uint256(keccak256(named))));
    }

    function _good() private pure returns (Signature memory) {
        return Signature(0, bytes32(uint256(1)), 0, 0);
    }
}

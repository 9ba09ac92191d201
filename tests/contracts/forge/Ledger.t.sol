// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Handler} from "./Handler.sol";

/// Invariants L6 and L7 under random calls: forge tries them after every one.
contract LedgerInvariants {
    uint32 private constant RECENT = 8; // epochs that are looked at one by one

    Handler public handler;

    function setUp() external {
        handler = new Handler();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function invariant_ledger() external view {
        require(bytes(handler.broken()).length == 0, handler.broken());
        _money();
        _finality();
        _claims();
    }

    /// What is paid is what was claimed, never more than was booked; bonds are where they belong.
    function _money() private view {
        uint256 supply = handler.token().totalSupply();
        require(supply + handler.burned() == handler.paid(), "supply");
        require(handler.ledger().totalClaimed() == handler.paid(), "total claimed");
        require(handler.paid() <= handler.ledger().highestTotal(), "solvency");
        bytes32 posterKey = handler.ledger().posterKey();
        uint256 bonds = handler.token().balanceOf(address(handler.registry()));
        require(bonds == handler.registry().bondOf(posterKey), "bonds");
        uint256 demands = handler.token().balanceOf(address(handler.ledger()));
        require(demands == 50 * uint256(handler.openDemands()), "demand bonds");
    }

    /// Nothing void is final, no open fraud is, and nothing with an open demand.
    function _finality() private view {
        uint32 head = handler.ledger().head();
        require(handler.ledger().finalHead() <= head, "final beyond the head");
        for (uint32 e = head + 1; e <= handler.highestPosted(); ++e) {
            require(!handler.ledger().isFinal(e), "a void epoch is final");
        }
        for (uint32 e = head > RECENT ? head - RECENT : 1; e <= head && head != 0; ++e) {
            (,,, uint8 demands) = handler.ledger().progress(e);
            require(demands == 0 || !handler.ledger().isFinal(e), "final with an open demand");
        }
        uint32 fraud = handler.fraud();
        require(fraud == 0 || !handler.ledger().isFinal(fraud), "a fraud is final");
    }

    /// What is claimed stands in a final epoch.
    function _claims() private view {
        for (uint256 i = 0; i < 4; ++i) {
            uint128 claimed = handler.ledger().claimed(handler.accountOf(i), 0);
            if (claimed == 0) continue;
            uint32 newest = handler.ledger().finalHead();
            require(i < handler.leavesOf(newest), "claimed without a leaf");
            require(claimed <= handler.leafOf(newest, i).cumulative, "claimed beyond the leaf");
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {INodeRegistry} from "./Interfaces.sol";

/// @title Draws jurors from the active nodes.
/// @notice Nodes are drawn one after another without replacement; a seat goes to the owner of each,
/// unless that is a party or has a seat already. At most CANDIDATES_MAX nodes are looked at, so a draw
/// has a bound; a network with few owners may get fewer than SEATS.
library Jury {
    struct Seat {
        address juror;
        bool voted;
    }

    uint256 internal constant SEATS = 7;
    uint256 internal constant CANDIDATES_MAX = 32;

    /// The jurors that `seed` draws: distinct owners, neither `accuser` nor `accused`.
    function draw(INodeRegistry registry, bytes32 seed, address accuser, address accused)
        internal
        view
        returns (address[] memory jurors)
    {
        uint256 left = registry.activeCount();
        uint256 looks = left < CANDIDATES_MAX ? left : CANDIDATES_MAX;
        uint256[] memory places = new uint256[](looks); // drawn so far
        uint256[] memory stands = new uint256[](looks); // and who stands there now
        jurors = new address[](SEATS);
        uint256 seats = 0;
        for (uint256 i = 0; i < looks && seats < SEATS; ++i) {
            uint256 place = uint256(keccak256(abi.encode(seed, i))) % left;
            --left;
            places[i] = place;
            // A drawn node's place is taken by the last of those not drawn yet.
            stands[i] = _at(places, stands, i, left);
            uint256 index = _at(places, stands, i, place);
            address owner = registry.ownerOf(registry.activeAt(index));
            if (owner == accuser || owner == accused || _sits(jurors, seats, owner)) continue;
            jurors[seats++] = owner;
        }
        assembly ("memory-safe") {
            mstore(jurors, seats)
        }
    }

    /// Marks the seat of `juror` as having voted. False: it has none, or has voted.
    function take(Seat[] storage seats, address juror) internal returns (bool) {
        for (uint256 i = 0; i < seats.length; ++i) {
            Seat storage seat = seats[i];
            if (seat.juror != juror) continue;
            if (seat.voted) return false;
            seat.voted = true;
            return true;
        }
        return false;
    }

    /// Who stands at `place` after the first `count` draws: the newest that took it, or its own.
    function _at(
        uint256[] memory places,
        uint256[] memory stands,
        uint256 count,
        uint256 place
    ) private pure returns (uint256) {
        for (uint256 i = count; i > 0; --i) {
            if (places[i - 1] == place) return stands[i - 1];
        }
        return place;
    }

    function _sits(address[] memory jurors, uint256 seats, address owner)
        private
        pure
        returns (bool)
    {
        for (uint256 i = 0; i < seats; ++i) {
            if (jurors[i] == owner) return true;
        }
        return false;
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Leaf, Place} from "../../../contracts/solidity/Interfaces.sol";

/// What a poster keeps: the leaves of every epoch, and their trees by protocol/spec/credit.md, written
/// apart from the contracts' own library.
contract Books {
    uint256 public constant ACCOUNTS = 4;

    mapping(uint32 => Leaf[]) internal _leaves;

    function leavesOf(uint32 epoch) public view returns (uint32) {
        return uint32(_leaves[epoch].length);
    }

    function leafOf(uint32 epoch, uint256 index) public view returns (Leaf memory) {
        return _leaves[epoch][index];
    }

    function accountOf(uint256 index) public pure returns (bytes32) {
        return bytes32(0xA00 + index);
    }

    /// The leaf at `index` with its proof; beyond the leaves, padding's proof.
    function placeOf(uint32 epoch, uint256 index) public view returns (Place memory place) {
        if (index < _leaves[epoch].length) place.leaf = _leaves[epoch][index];
        place.index = index;
        (,, place.proof) = treeOf(epoch, index);
    }

    function treeOf(uint32 epoch, uint256 index)
        public
        view
        returns (bytes32 root, uint128 total, bytes memory proof)
    {
        Leaf[] storage leaves = _leaves[epoch];
        uint256 width = 1;
        while (width < leaves.length) width *= 2;
        bytes32[] memory hashes = new bytes32[](width);
        uint128[] memory sums = new uint128[](width);
        for (uint256 i = 0; i < width; ++i) {
            hashes[i] = i < leaves.length ? _hash(leaves[i]) : sha256(hex"03");
            sums[i] = i < leaves.length ? leaves[i].cumulative : 0;
        }
        while (width > 1) {
            proof = abi.encodePacked(proof, hashes[index ^ 1], sums[index ^ 1]);
            index /= 2;
            width /= 2;
            for (uint256 i = 0; i < width; ++i) {
                uint256 a = 2 * i;
                hashes[i] = sha256(
                    abi.encodePacked(bytes1(0x01), hashes[a], sums[a], hashes[a + 1], sums[a + 1])
                );
                sums[i] = sums[a] + sums[a + 1];
            }
        }
        return (hashes[0], sums[0], proof);
    }

    function _hash(Leaf storage leaf) private view returns (bytes32) {
        return sha256(
            abi.encodePacked(
                bytes1(0x00),
                leaf.account,
                leaf.role,
                leaf.cumulative,
                leaf.epochCredit,
                leaf.receiptsRoot
            )
        );
    }
}

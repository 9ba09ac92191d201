// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Leaf} from "./Interfaces.sol";

/// One booked receipt or audit (protocol/spec/credit.md).
struct Line {
    uint8 kind;
    bytes16 id;
    bytes32 digest;
    uint128 amount;
}

/// @title The hashes and proofs of protocol/spec/credit.md.
/// @notice Rules: the first byte of what is hashed separates leaf, node, line and padding; a node
/// hashes both child sums; the index directs the fold, and `index >> depth` is 0; no sum reaches
/// 2^128. A fold that breaks a rule is not ok, it does not revert.
library SumTree {
    bytes32 internal constant PADDING =
        0x084fed08b978af4d7d196a7446a86b58009e636b611db16211b65a9aadff29c5; // sha256(0x03)
    uint256 internal constant ITEM_BYTES = 48; // sibling hash 32, sibling sum 16
    uint256 internal constant DEPTH_MAX = 32;

    uint256 private constant LEAF_BYTES = 98;
    uint256 private constant NODE_BYTES = 97;
    uint256 private constant LINE_BYTES = 66;

    function hashLeaf(Leaf calldata leaf) internal pure returns (bytes32) {
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

    function hashLine(Line calldata line) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0x02), line.kind, line.id, line.digest, line.amount));
    }

    /// The sum that a hashed text has by its own bytes: a leaf's or line's amount, or what a node's
    /// children add up to (129 bits). Not known: no text that a tree hashes.
    function sumOf(bytes calldata text) internal pure returns (bool known, uint256 sum) {
        if (text.length == 0) return (false, 0);
        bytes1 domain = text[0];
        if (domain == 0x00 && text.length == LEAF_BYTES) return (true, _amount(text, 34));
        if (domain == 0x01 && text.length == NODE_BYTES) {
            return (true, _amount(text, 33) + _amount(text, 81));
        }
        if (domain == 0x02 && text.length == LINE_BYTES) return (true, _amount(text, 50));
        return (domain == 0x03 && text.length == 1, 0);
    }

    /// Whether a proof of `length` bytes has exactly the least depth that holds `leaves`.
    function isDepth(uint256 length, uint256 leaves) internal pure returns (bool) {
        uint256 depth = length / ITEM_BYTES;
        if (length % ITEM_BYTES != 0 || depth > DEPTH_MAX || leaves > 1 << depth) return false;
        return depth == 0 || leaves > 1 << (depth - 1);
    }

    /// The root and total that `proof`, 48 bytes a level, leads to from a node at `index`.
    function fold(bytes32 node, uint256 sum, uint256 index, bytes calldata proof)
        internal
        view
        returns (bool ok, bytes32 root, uint256 total)
    {
        uint256 depth = proof.length / ITEM_BYTES;
        if (proof.length % ITEM_BYTES != 0 || depth > DEPTH_MAX || index >> depth != 0) {
            return (false, 0, 0);
        }
        ok = true;
        // A level costs about 430 gas here, about 1,500 with abi.encodePacked and slices.
        assembly ("memory-safe") {
            let text := mload(0x40)
            mstore8(text, 0x01)
            let end := add(proof.offset, proof.length)
            for { let item := proof.offset } lt(item, end) { item := add(item, 48) } {
                let siblingSum := shr(128, calldataload(add(item, 32)))
                switch and(index, 1)
                case 0 {
                    mstore(add(text, 1), node)
                    mstore(add(text, 33), shl(128, sum))
                    mstore(add(text, 49), calldataload(item))
                    mstore(add(text, 81), shl(128, siblingSum))
                }
                default {
                    mstore(add(text, 1), calldataload(item))
                    mstore(add(text, 33), shl(128, siblingSum))
                    mstore(add(text, 49), node)
                    mstore(add(text, 81), shl(128, sum))
                }
                sum := add(sum, siblingSum)
                if shr(128, sum) {
                    ok := 0
                    break
                }
                // Yul evaluates arguments from the last: the call, then what it returned. A chain
                // without the precompile returns nothing.
                if iszero(and(eq(returndatasize(), 32), staticcall(gas(), 2, text, 97, 0, 32))) {
                    revert(0, 0)
                }
                node := mload(0)
                index := shr(1, index)
            }
            root := node
            total := sum
        }
    }

    /// Whether the path of the last of `leaves` leaves has an amount to its right.
    function hasSumBeyond(uint256 leaves, bytes calldata proof) internal pure returns (bool) {
        uint256 index = leaves - 1;
        for (uint256 offset = 0; offset < proof.length; offset += ITEM_BYTES) {
            if (index & 1 == 0 && _amount(proof, offset + 32) != 0) return true;
            index >>= 1;
        }
        return false;
    }

    function _amount(bytes calldata text, uint256 offset) private pure returns (uint256) {
        return uint128(bytes16(text[offset:offset + 16]));
    }
}

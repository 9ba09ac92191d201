// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IEd25519Verifier, Signature} from "./Interfaces.sol";
import {Sha512} from "./Sha512.sol";

/// @title Ed25519 signatures, with the verdict that libsodium's releases have.
/// @notice True if and only if
/// - S < L; the key and R are canonical (y < p), on the curve, and not of small order;
/// - S * B = R + SHA512(R | key | message) * key, exactly (no cofactor).
/// The x coordinates come with the signature. Each is the one x with that y and that sign bit or the
/// answer is false, so a wrong hint can lose a signature and never win one.
contract Ed25519Verifier is IEd25519Verifier {
    uint256 public constant MESSAGE_BYTES_MAX = 1024;

    uint256 private constant P = 0x7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed;
    uint256 private constant L = 0x1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed;
    uint256 private constant D = 0x52036cee2b6ffe738cc740797779e89800700a4d4141d8ab75eb4dca135978a3;
    uint256 private constant TWO_256_MOD_L =
        0xffffffffffffffffffffffffffffffec6ef5bf4737dcf70d6ec31748d98951d;
    uint256 private constant MASK_128 = (1 << 128) - 1;
    uint256 private constant Y_MASK = (1 << 255) - 1;

    error MessageTooLong(uint256 length);

    function verify(bytes32 key, bytes calldata message, Signature calldata signature)
        external
        pure
        returns (bool)
    {
        if (message.length > MESSAGE_BYTES_MAX) revert MessageTooLong(message.length);
        uint256 s = _reversed(uint256(signature.s));
        uint256 keyY = _reversed(uint256(key));
        uint256 rY = _reversed(uint256(signature.r));
        if (s >= L) return false;
        if (keyY >> 255 != signature.keyX & 1 || rY >> 255 != signature.rX & 1) return false;
        keyY &= Y_MASK;
        rY &= Y_MASK;
        if (!_sound(signature.keyX, keyY) || !_sound(signature.rX, rY)) return false;
        (uint256 high, uint256 low) = Sha512.ofSigned(signature.r, key, message);
        uint256 k = addmod(mulmod(_reversed(low), TWO_256_MOD_L, L), _reversed(high), L);
        (uint256 x, uint256 y, uint256 z) = _combination(s, k, P - signature.keyX, keyY);
        return mulmod(signature.rX, z, P) == x && mulmod(rY, z, P) == y;
    }

    /// On the curve -x^2 + y^2 = 1 + d x^2 y^2, reduced, and of an order that does not divide 8.
    function _sound(uint256 x, uint256 y) private pure returns (bool) {
        if (x >= P || y >= P) return false;
        uint256 xx = mulmod(x, x, P);
        uint256 yy = mulmod(y, y, P);
        if (addmod(yy, P - xx, P) != addmod(1, mulmod(D, mulmod(xx, yy, P), P), P)) return false;
        // Of order 1 and 2 are the points with x = 0, of order 4 those with y = 0; twice a point of
        // order 8 has order 4, and y = 0 there means y^2 = -x^2 here.
        return x != 0 && y != 0 && addmod(xx, yy, P) != 0;
    }

    /// Little-endian to big-endian.
    function _reversed(uint256 v) private pure returns (uint256) {
        uint256 m = 0x00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff;
        v = ((v >> 8) & m) | ((v & m) << 8);
        m = 0x0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff;
        v = ((v >> 16) & m) | ((v & m) << 16);
        m = 0x00000000ffffffff00000000ffffffff00000000ffffffff00000000ffffffff;
        v = ((v >> 32) & m) | ((v & m) << 32);
        m = 0x0000000000000000ffffffffffffffff0000000000000000ffffffffffffffff;
        v = ((v >> 64) & m) | ((v & m) << 64);
        return (v >> 128) | (v << 128);
    }

    /// s * B + k * Q for Q = (x, y) on the curve, in projective coordinates.
    /// @dev Two bits of each scalar at a time, out of a table of the 15 sums i * B + j * Q. Points are
    /// extended (X, Y, Z, T); those of the table are (Y - X, Y + X, 2dT, 2Z). The formulas (Hisil, Wong,
    /// Carter, Dawson 2008, a = -1) hold for all points of the curve, so there are no cases, and Z is
    /// never 0. Between operations values stay below p; sums of two before a `mulmod` fit in 256 bits.
    function _combination(uint256 s, uint256 k, uint256 qx, uint256 qy)
        private
        pure
        returns (uint256 x, uint256 y, uint256 z)
    {
        uint256 table = _table(qx, qy);
        uint256 high = _spread(s >> 128) | (_spread(k >> 128) << 2);
        uint256 low = _spread(s & MASK_128) | (_spread(k & MASK_128) << 2);
        assembly ("memory-safe") {
            mstore(table, high)
            mstore(add(table, 32), low)
        }
        return _walk(table, P);
    }

    /// Four times the point plus an entry of `table`, for each four bits of the table's first two words.
    /// @dev p is an argument because a constant would be computed anew at each use.
    function _walk(uint256 table, uint256 p)
        private
        pure
        returns (uint256 x, uint256 y, uint256 z)
    {
        assembly ("memory-safe") {
            y := 1
            z := 1
            for { let word := 0 } lt(word, 64) { word := add(word, 32) } {
                let steps := mload(add(table, word))
                for { let i := 256 } i { } {
                    i := sub(i, 4)
                    let e := add(x, y)
                    {
                        let a := mulmod(x, x, p)
                        let b := mulmod(y, y, p)
                        let h := add(a, b)
                        let g := add(a, sub(p, b))
                        e := addmod(h, sub(p, mulmod(e, e, p)), p)
                        z := mulmod(z, z, p)
                        z := addmod(add(z, z), g, p)
                        x := mulmod(e, z, p)
                        y := mulmod(g, h, p)
                        z := mulmod(z, g, p)
                    }
                    let a := mulmod(x, x, p)
                    let b := mulmod(y, y, p)
                    let h := add(a, b)
                    let g := add(a, sub(p, b))
                    e := add(x, y)
                    e := addmod(h, sub(p, mulmod(e, e, p)), p)
                    z := mulmod(z, z, p)
                    z := addmod(add(z, z), g, p)
                    x := mulmod(e, z, p)
                    y := mulmod(g, h, p)
                    z := mulmod(z, g, p)
                    g := and(shr(i, steps), 15)
                    if g {
                        g := add(table, shl(7, g)) // the entry
                        h := mulmod(mulmod(e, h, p), mload(add(g, 64)), p)
                        a := mulmod(add(y, sub(p, x)), mload(g), p)
                        b := mulmod(add(y, x), mload(add(g, 32)), p)
                        z := mulmod(z, mload(add(g, 96)), p)
                        e := add(b, sub(p, a))
                        g := add(z, h)
                        z := add(z, sub(p, h))
                        h := add(b, a)
                        x := mulmod(e, z, p)
                        y := mulmod(g, h, p)
                        z := mulmod(z, g, p)
                    }
                }
            }
        }
    }

    /// 64 pairs of bits, each at the foot of four.
    function _spread(uint256 v) private pure returns (uint256) {
        v = (v | (v << 64)) & 0x0000000000000000ffffffffffffffff0000000000000000ffffffffffffffff;
        v = (v | (v << 32)) & 0x00000000ffffffff00000000ffffffff00000000ffffffff00000000ffffffff;
        v = (v | (v << 16)) & 0x0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff;
        v = (v | (v << 8)) & 0x00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff;
        v = (v | (v << 4)) & 0x0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f;
        return (v | (v << 2)) & 0x3333333333333333333333333333333333333333333333333333333333333333;
    }

    /// The table: entry i + 4j is i * B + j * Q, 128 bytes each; entry 0 is free.
    function _table(uint256 qx, uint256 qy) private pure returns (uint256 table) {
        uint256[64] memory space;
        uint256[4] memory point;
        uint256[4] memory other;
        assembly ("memory-safe") {
            table := space
            function put(to, yMinusX, yPlusX, t2d, z2) {
                mstore(to, yMinusX)
                mstore(add(to, 32), yPlusX)
                mstore(add(to, 64), t2d)
                mstore(add(to, 96), z2)
            }
            function prepare(to, from) {
                let x := mload(from)
                let y := mload(add(from, 32))
                let z := mload(add(from, 64))
                let t := mload(add(from, 96))
                let d2 := 0x2406d9dc56dffce7198e80f2eef3d13000e0149a8283b156ebd69b9426b2f159
                put(to, addmod(y, sub(P, x), P), addmod(y, x, P), mulmod(t, d2, P), addmod(z, z, P))
            }
            // to := from + the prepared point at `entry`
            function plus(to, from, entry) {
                let x := mload(from)
                let y := mload(add(from, 32))
                let a := mulmod(add(y, sub(P, x)), mload(entry), P)
                let b := mulmod(add(y, x), mload(add(entry, 32)), P)
                let c := mulmod(mload(add(from, 96)), mload(add(entry, 64)), P)
                let d := mulmod(mload(add(from, 64)), mload(add(entry, 96)), P)
                let e := add(b, sub(P, a))
                let f := add(d, sub(P, c))
                let g := add(d, c)
                let h := add(b, a)
                put(to, mulmod(e, f, P), mulmod(g, h, P), mulmod(f, g, P), mulmod(e, h, P))
            }
            put(
                add(table, 128),
                0x44fd2f9298f81267a5c18434688f8a09fd399f05d140beb39d103905d740913e,
                0x07cf9d3a33d4ba65270b4898643d42c2cf932dc6fb8c0e192fbc93c6f58c3b85,
                0x6f117b689f0c65a85a1b7dcbdd43598c26d9e823ccaac49eabc91205877aaa68,
                2
            )
            put(
                add(table, 256),
                0x6bb595a669c92555e09e236bb16e37aa8f2b810c4e60acf68a99a56042b4d5a8,
                0x590c063fa87d2e2e5aa69a65e1d607029f469d967a0ff5b59224e7fc933c71d7,
                0x701af5b13ea50b73500fa0840b3d6a3136c16bdd5d9acf7843faa8b3a59b7a5f,
                2
            )
            put(
                add(table, 384),
                0x2ab91587555bda628131f31a214bd6bd3bd353fde5c1ba7d56611fe8a4fcd265,
                0x7a164e1b9a80f8f4c11b50029f016732025a8430e8864b8aaf25b0a84cee9730,
                0x5a2826af12b9b4c6d170e5458cf2db4c589423221c35da6214ae933f0dd0d889,
                2
            )
            put(point, qx, qy, 1, mulmod(qx, qy, P))
            for { let row := add(table, 512) } lt(row, add(table, 2048)) { row := add(row, 512) } {
                prepare(row, point)
                for { let i := 128 } lt(i, 512) { i := add(i, 128) } {
                    plus(other, point, add(table, i))
                    prepare(add(row, i), other)
                }
                plus(point, point, add(table, 512))
            }
        }
    }
}

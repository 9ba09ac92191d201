// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title SHA-512 (FIPS 180-4) of what an Ed25519 signature covers: R, the key, the message.
/// @notice The EVM has no instruction for it: about 31,000 gas a block of 128 bytes.
library Sha512 {
    /// The digest as two words, big-endian: its first 32 bytes and its last.
    function ofSigned(bytes32 r, bytes32 key, bytes calldata message)
        internal
        pure
        returns (uint256, uint256)
    {
        (uint256 start, uint256 end) = _padded(r, key, message);
        return _digest(start, end, _CONSTANTS, _EVEN_LANES);
    }

    /// @dev Two words hold the eight lanes a..d and e..h, the first on top. Only the low 64 bits of a
    /// sum ever count, so what stands above them in a term does no harm and is not masked away. The
    /// schedule is computed two words at a time; each takes 16 bytes. `even` is an argument because a
    /// constant would be computed anew at each use.
    function _digest(uint256 block_, uint256 end, bytes memory constants, uint256 even)
        private
        pure
        returns (uint256 high, uint256 low)
    {
        assembly ("memory-safe") {
            function sum(a, b, even_) -> c {
                // Lane by lane modulo 2^64: the even and the odd ones apart.
                let odd := not(even_)
                c := or(
                    and(add(and(a, even_), and(b, even_)), even_),
                    and(add(and(a, odd), and(b, odd)), odd)
                )
            }
            let w := mload(0x40) // the schedule: 80 words of 64 bits
            high := 0x6a09e667f3bcc908bb67ae8584caa73b3c6ef372fe94f82ba54ff53a5f1d36f1
            low := 0x510e527fade682d19b05688c2b3e6c1f1f83d9abfb41bd6b5be0cd19137e2179
            for { } lt(block_, end) { block_ := add(block_, 128) } {
                for { let i := 0 } lt(i, 256) { i := add(i, 32) } {
                    let x := mload(add(block_, shr(1, i)))
                    mstore(add(w, i), and(or(shl(128, shr(192, x)), shr(128, x)), even))
                }
                {
                    let last := add(w, 1280)
                    for { let q := add(w, 256) } lt(q, last) { q := add(q, 32) } {
                        let x := mload(sub(q, 240))
                        let y := mul(x, 0x10000000000000001)
                        let s := and(xor(xor(shr(1, y), shr(8, y)), shr(7, x)), even)
                        x := mload(sub(q, 32))
                        y := mul(x, 0x10000000000000001)
                        s := add(s, and(xor(xor(shr(19, y), shr(61, y)), shr(6, x)), even))
                        s := add(add(s, mload(sub(q, 256))), mload(sub(q, 112)))
                        mstore(q, and(s, even))
                    }
                }
                let a := high // lanes a, b, c, d
                let e := low // lanes e, f, g, h
                let k := add(constants, 8) // so that a constant is the last of the 32 bytes read
                let last := add(w, 1264)
                for { let q := sub(w, 16) } lt(q, last) { q := add(q, 16) } {
                    let y := mul(shr(192, e), 0x10000000000000001) // twice: rotations are shifts
                    let f := shl(64, e)
                    let g := shl(128, e)
                    let t := add(
                        add(add(e, mload(q)), add(mload(k), shr(192, xor(g, and(e, xor(f, g)))))),
                        xor(xor(shr(14, y), shr(18, y)), shr(41, y))
                    )
                    k := add(k, 8)
                    e := or(shl(192, add(a, t)), shr(64, e))
                    y := mul(shr(192, a), 0x10000000000000001)
                    f := shl(64, a)
                    t := add(t, xor(xor(shr(28, y), shr(34, y)), shr(39, y)))
                    t := add(t, shr(192, xor(and(a, f), and(shl(128, a), xor(a, f)))))
                    a := or(shl(192, t), shr(64, a))
                }
                high := sum(high, a, even)
                low := sum(low, e, even)
            }
        }
    }

    /// r | key | message | 0x80 | zeros | length in bits, in memory: where it starts and ends.
    function _padded(bytes32 r, bytes32 key, bytes calldata message)
        private
        pure
        returns (uint256 start, uint256 end)
    {
        uint256 length = 64 + message.length;
        uint256 size = (length + 17 + 127) & ~uint256(127);
        bytes memory padded = new bytes(size); // all zeros
        assembly ("memory-safe") {
            start := add(padded, 32)
            end := add(start, size)
            mstore(start, r)
            mstore(add(start, 32), key)
            calldatacopy(add(start, 64), message.offset, message.length)
            mstore8(add(start, length), 0x80)
            let tail := sub(end, 32)
            mstore(tail, or(mload(tail), shl(3, length)))
        }
    }

    uint256 private constant _EVEN_LANES =
        0x0000000000000000ffffffffffffffff0000000000000000ffffffffffffffff;
    /// The first 64 bits of the fraction of the cube roots of the first 80 primes.
    bytes private constant _CONSTANTS =
        hex"428a2f98d728ae227137449123ef65cdb5c0fbcfec4d3b2fe9b5dba58189dbbc"
        hex"3956c25bf348b53859f111f1b605d019923f82a4af194f9bab1c5ed5da6d8118"
        hex"d807aa98a303024212835b0145706fbe243185be4ee4b28c550c7dc3d5ffb4e2"
        hex"72be5d74f27b896f80deb1fe3b1696b19bdc06a725c71235c19bf174cf692694"
        hex"e49b69c19ef14ad2efbe4786384f25e30fc19dc68b8cd5b5240ca1cc77ac9c65"
        hex"2de92c6f592b02754a7484aa6ea6e4835cb0a9dcbd41fbd476f988da831153b5"
        hex"983e5152ee66dfaba831c66d2db43210b00327c898fb213fbf597fc7beef0ee4"
        hex"c6e00bf33da88fc2d5a79147930aa72506ca6351e003826f142929670a0e6e70"
        hex"27b70a8546d22ffc2e1b21385c26c9264d2c6dfc5ac42aed53380d139d95b3df"
        hex"650a73548baf63de766a0abb3c77b2a881c2c92e47edaee692722c851482353b"
        hex"a2bfe8a14cf10364a81a664bbc423001c24b8b70d0f89791c76c51a30654be30"
        hex"d192e819d6ef5218d69906245565a910f40e35855771202a106aa07032bbd1b8"
        hex"19a4c116b8d2d0c81e376c085141ab532748774cdf8eeb9934b0bcb5e19b48a8"
        hex"391c0cb3c5c95a634ed8aa4ae3418acb5b9cca4f7763e373682e6ff3d6b2b8a3"
        hex"748f82ee5defb2fc78a5636f43172f6084c87814a1f0ab728cc702081a6439ec"
        hex"90befffa23631e28a4506cebde82bde9bef9a3f7b2c67915c67178f2e372532b"
        hex"ca273eceea26619cd186b8c721c0c207eada7dd6cde0eb1ef57d4f7fee6ed178"
        hex"06f067aa72176fba0a637dc5a2c898a6113f9804bef90dae1b710b35131c471b"
        hex"28db77f523047d8432caab7b40c724933c9ebe0a15c9bebc431d67c49c100d4c"
        hex"4cc5d4becb3e42b6597f299cfc657e2a5fcb6fab3ad6faec6c44198c4a475817";
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title What a signed message of the protocol is about, read from the bytes that are signed.
/// @notice They are `assay/1/NAME`, a zero byte, and canonical msgpack: a map of integer keys in
/// ascending order, key 0 holding the type. Two kinds are statements an honest signer makes once:
/// - Receipt (type 112): the subject is its ticket (key 2, 16 bytes); key 1, a count, may come before;
/// - Seal (type 116): the subject is key 2, 32 bytes.
library Statements {
    enum Kind {
        None,
        Receipt,
        Seal
    }

    bytes16 private constant RECEIPT = "assay/1/Receipt\x00";
    bytes13 private constant SEAL = "assay/1/Seal\x00";
    bytes2 private constant RECEIPT_TYPE = 0x0070;
    bytes2 private constant SEAL_TYPE = 0x0074;
    bytes3 private constant TICKET = 0x02c410;
    bytes3 private constant SEALED = 0x02c420;

    /// None if `message` is no such statement.
    function subjectOf(bytes calldata message) internal pure returns (Kind kind, bytes32 subject) {
        if (message.length > 20 && bytes16(message[:16]) == RECEIPT) {
            bytes calldata body = message[16:];
            if (!_isMap(body[0]) || bytes2(body[1:3]) != RECEIPT_TYPE) return (Kind.None, 0);
            body = _skipCount(body[3:]);
            if (body.length < 19 || bytes3(body[:3]) != TICKET) return (Kind.None, 0);
            return (Kind.Receipt, bytes32(bytes16(body[3:19])));
        }
        if (message.length >= 51 && bytes13(message[:13]) == SEAL) {
            bytes calldata body = message[13:];
            if (!_isMap(body[0]) || bytes2(body[1:3]) != SEAL_TYPE) return (Kind.None, 0);
            if (bytes3(body[3:6]) != SEALED) return (Kind.None, 0);
            return (Kind.Seal, bytes32(body[6:38]));
        }
        return (Kind.None, 0);
    }

    /// A map of at most 15 entries: no message that is a statement has more.
    function _isMap(bytes1 first) private pure returns (bool) {
        return first & 0xf0 == 0x80;
    }

    /// What follows key 1 and its count, if they come first: an integer of 1, 2, 3 or 5 bytes.
    function _skipCount(bytes calldata body) private pure returns (bytes calldata) {
        if (body.length < 7 || body[0] != 0x01) return body;
        uint8 head = uint8(body[1]);
        if (head < 0x80) return body[2:];
        if (head == 0xcc) return body[3:];
        if (head == 0xcd) return body[4:];
        if (head == 0xce) return body[6:];
        return body;
    }
}

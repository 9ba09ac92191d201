// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// What the contracts ask of one another. Structs first; each contract's rules stand in its own file.

/// An Ed25519 signature. The x coordinates of the key's point and of R are hints: they are checked on
/// the curve against the y coordinates that are signed, and spare two square roots.
struct Signature {
    bytes32 r;
    bytes32 s; // little-endian, as in RFC 8032
    uint256 keyX;
    uint256 rX;
}

/// One account's line of an epoch's account tree (protocol/spec/credit.md).
struct Leaf {
    bytes32 account; // Ed25519 public key
    uint8 role;
    uint128 cumulative;
    uint128 epochCredit;
    bytes32 receiptsRoot;
}

/// A leaf, its index, and 48 bytes (sibling hash 32, sibling sum 16) a level, leaf to root.
struct Place {
    Leaf leaf;
    uint256 index;
    bytes proof;
}

interface IEd25519Verifier {
    /// Whether `signature` is libsodium's idea of a valid signature by `key` of `message`.
    function verify(bytes32 key, bytes calldata message, Signature calldata signature)
        external
        view
        returns (bool);
}

interface INodeRegistry {
    enum State {
        None,
        Probation,
        Active,
        Exiting,
        Ejected
    }

    function stateOf(bytes32 key) external view returns (State);
    function ownerOf(bytes32 key) external view returns (address); // of a bonded node; else zero
    function payeeOf(bytes32 key) external view returns (address); // zero: bound to nobody yet
    function bondOf(bytes32 key) external view returns (uint96);
    function activeCount() external view returns (uint256);
    function activeAt(uint256 index) external view returns (bytes32 key);
    function unbonding() external view returns (uint32); // seconds
    function nonceOf(bytes32 key) external view returns (uint256); // in the next signed message

    /// Takes up to `amount` of the bond, `reporterBps` of it to `reporter`, burns the rest; a key
    /// without a bond loses nothing. Only the ledger and the court may.
    function slash(
        bytes32 key,
        uint96 amount,
        address reporter,
        uint16 reporterBps,
        bytes32 evidence
    ) external returns (uint96 taken);
}

interface ICreditLedger {
    function head() external view returns (uint32);
    function isFinal(uint32 epoch) external view returns (bool);
    /// The newest epoch known to be final; `settle` looks at up to `count` more.
    function finalHead() external view returns (uint32);
    function settle(uint32 count) external;
    function totalOf(uint32 epoch) external view returns (uint128);
    /// The header as posted; zeros if there is none, or none any more.
    function epochs(uint32 epoch)
        external
        view
        returns (bytes32 root, uint128 totalCum, uint64 postedAt, uint32 leaves);
    function claimed(bytes32 account, uint8 role) external view returns (uint128);
    function totalClaimed() external view returns (uint128);
    /// The highest `totalCum` of the epochs that were claimed against.
    function highestTotal() external view returns (uint128);
    function verifyLeaf(uint32 epoch, Leaf calldata leaf, uint256 index, bytes calldata proof)
        external
        view
        returns (bool);
}

interface ICreditToken {
    function mint(address to, uint256 amount) external;
    function burn(uint256 amount) external;
    /// The ledger of the day.
    function minter() external view returns (address);
}

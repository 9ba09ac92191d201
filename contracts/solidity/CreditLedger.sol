// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title One root per epoch of everything every account has earned.
/// @notice The root is that of a Merkle-SUM tree over SHA-256 (protocol/spec/credit.md). The cost of an
/// epoch does not depend on its number of jobs. Nothing here can be upgraded, paused or overwritten:
/// what was posted stays, and anybody can check a leaf against it with `verifyLeaf`.
contract CreditLedger {
    struct Header {
        bytes32 root; // of the account tree
        uint128 totalCum; // its sum: all credit ever booked
        uint64 jobs; // booked in this epoch
        uint32 leaves; // accounts in the tree
        bytes32 dataHash; // sha256 of the published leaf file
        bytes32 policy; // sha256 of the rules that priced the epoch
    }

    /// Two storage slots.
    struct Epoch {
        bytes32 root;
        uint128 totalCum;
        uint64 postedAt; // seconds, of the block
        uint32 leaves;
    }

    struct Leaf {
        bytes32 account; // Ed25519 public key
        uint8 role;
        uint128 cumulative;
        uint128 epochCredit;
        bytes32 receiptsRoot;
    }

    uint256 private constant PROOF_ITEM = 48; // sibling hash 32, sibling sum 16

    address public immutable poster;
    uint32 public head; // the newest epoch; 0 before the first
    mapping(uint32 => Epoch) public epochs;

    event EpochPosted(
        uint32 indexed epoch,
        bytes32 root,
        uint128 totalCum,
        uint64 jobs,
        uint32 leaves,
        bytes32 dataHash,
        bytes32 policy
    );

    error ZeroPoster();
    error NotPoster(address caller);
    error EpochOutOfOrder(uint32 expected, uint32 given);
    error ZeroRoot();
    error TotalLowered(uint128 previous, uint128 given);
    error UnknownEpoch(uint32 epoch);

    constructor(address poster_) {
        if (poster_ == address(0)) revert ZeroPoster();
        poster = poster_;
    }

    /// Records the next epoch. A retry of a posted epoch reverts, so sending twice cannot book twice.
    function post(uint32 epoch, Header calldata header) external {
        if (msg.sender != poster) revert NotPoster(msg.sender);
        uint32 expected = head + 1;
        if (epoch != expected) revert EpochOutOfOrder(expected, epoch);
        // An unset root reads as zero; were zero ever posted, absence would count as proof.
        if (header.root == bytes32(0)) revert ZeroRoot();
        uint128 previous = epochs[epoch - 1].totalCum;
        if (header.totalCum < previous) revert TotalLowered(previous, header.totalCum);
        epochs[epoch] = Epoch(header.root, header.totalCum, uint64(block.timestamp), header.leaves);
        head = epoch;
        emit EpochPosted(
            epoch,
            header.root,
            header.totalCum,
            header.jobs,
            header.leaves,
            header.dataHash,
            header.policy
        );
    }

    /// Whether `leaf` stands at `index` of the epoch's tree. `proof` is 48 bytes a level, leaf to root.
    function verifyLeaf(uint32 epoch, Leaf calldata leaf, uint256 index, bytes calldata proof)
        external
        view
        returns (bool)
    {
        Epoch storage posted = epochs[epoch];
        if (posted.root == bytes32(0)) revert UnknownEpoch(epoch);
        if (index >= posted.leaves) return false;
        bytes32 hash = sha256(
            abi.encodePacked(
                bytes1(0x00),
                leaf.account,
                leaf.role,
                leaf.cumulative,
                leaf.epochCredit,
                leaf.receiptsRoot
            )
        );
        (bool ok, bytes32 root, uint128 total) = _fold(hash, leaf.cumulative, index, proof);
        return ok && root == posted.root && total == posted.totalCum;
    }

    /// Index-directed, and both child sums are hashed. Not ok: broken length, index beyond the depth,
    /// or a sum of more than 128 bits.
    function _fold(bytes32 node, uint128 sum, uint256 index, bytes calldata proof)
        private
        pure
        returns (bool, bytes32, uint128)
    {
        uint256 depth = proof.length / PROOF_ITEM;
        if (proof.length % PROOF_ITEM != 0 || depth > 32 || index >> depth != 0) {
            return (false, 0, 0);
        }
        for (uint256 i = 0; i < proof.length; i += PROOF_ITEM) {
            bytes32 sibling = bytes32(proof[i:i + 32]);
            uint128 siblingSum = uint128(bytes16(proof[i + 32:i + PROOF_ITEM]));
            if (siblingSum > type(uint128).max - sum) return (false, 0, 0);
            node = index & 1 == 0
                ? sha256(abi.encodePacked(bytes1(0x01), node, sum, sibling, siblingSum))
                : sha256(abi.encodePacked(bytes1(0x01), sibling, siblingSum, node, sum));
            sum += siblingSum;
            index >>= 1;
        }
        return (true, node, sum);
    }
}

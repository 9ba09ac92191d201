// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ICreditToken, IEd25519Verifier, INodeRegistry, Signature} from "./Interfaces.sol";

/// @title Who stands behind an Ed25519 key: its owner, its bond, and where its pay goes.
/// @notice Rules: an owner or a payee is bound to a key only by that key's signature, which names
/// this chain, this contract and the key's nonce, so it serves once; a bond can be slashed until it
/// is withdrawn; every bond is in this contract's balance; only the ledger of the day (the token's
/// minter) and the court slash.
contract NodeRegistry is INodeRegistry {
    using SafeERC20 for IERC20;

    struct Config {
        address verifier;
        address token;
        address court;
        address timelock;
        uint32 probation; // seconds from registration to `activate`
        uint32 unbonding; // seconds from `beginExit` to `withdraw`
        uint96 minBond;
        uint96 minBondLow; // what `setMinBond` may choose from
        uint96 minBondHigh;
    }

    /// Two storage slots.
    struct Node {
        address owner;
        uint96 bond;
        uint40 since; // seconds: registered, or, if Exiting, when the exit began
        uint32 place; // in the list of the active, from 1; 0: not in it
        State state;
    }

    uint256 private constant WHOLE_BPS = 10_000;

    IEd25519Verifier public immutable verifier;
    address public immutable token;
    address public immutable court;
    address public immutable timelock;
    uint32 public immutable probation;
    uint32 public immutable unbonding;
    uint96 public immutable minBondLow;
    uint96 public immutable minBondHigh;

    uint96 public minBond;
    mapping(bytes32 => Node) public nodes;
    mapping(bytes32 => address) public payeeOf;
    mapping(bytes32 => uint256) public nonceOf;
    bytes32[] private _active;

    event Registered(bytes32 indexed key, address indexed owner, uint96 bond);
    event PayeeBound(bytes32 indexed key, address indexed payee);
    event StateChanged(bytes32 indexed key, State state);
    event BondRaised(bytes32 indexed key, uint96 added, uint96 bond);
    event Withdrawn(bytes32 indexed key, address indexed owner, uint96 bond);
    event Slashed(
        bytes32 indexed key,
        uint96 taken,
        uint96 left,
        address indexed reporter,
        uint256 reward,
        bytes32 evidence
    );
    event MinBondSet(uint96 minBond);

    error BadConfig();
    error BadSignature(bytes32 key);
    error ZeroPayee();
    error BondTooLow(uint96 least, uint96 given);
    error WrongState(bytes32 key, State state);
    error NotOwner(bytes32 key, address caller);
    error TooEarly(uint256 from);
    error NotSlasher(address caller);
    error NotTimelock(address caller);
    error BondOutOfCaps(uint96 low, uint96 high, uint96 given);
    error RewardTooHigh(uint16 bps);

    constructor(Config memory config) {
        // A least bond of 0 would make a slashed node as good as any other.
        if (config.minBondLow == 0 || config.token == address(0)) revert BadConfig();
        verifier = IEd25519Verifier(config.verifier);
        token = config.token;
        court = config.court;
        timelock = config.timelock;
        probation = config.probation;
        unbonding = config.unbonding;
        minBondLow = config.minBondLow;
        minBondHigh = config.minBondHigh;
        _setMinBond(config.minBond);
    }

    // ---- the key's own consent ----

    /// Puts the sender behind `key` with a bond; its pay goes to the sender unless it is bound.
    function register(bytes32 key, uint96 bond, Signature calldata signature) external {
        Node storage node = nodes[key];
        bool free = node.state == State.None || (node.state == State.Ejected && node.bond == 0);
        if (!free) revert WrongState(key, node.state);
        if (bond < minBond) revert BondTooLow(minBond, bond);
        _useSignature("assay/1/Register\x00", key, msg.sender, signature);
        nodes[key] = Node(msg.sender, bond, uint40(block.timestamp), 0, State.Probation);
        emit Registered(key, msg.sender, bond);
        emit StateChanged(key, State.Probation);
        if (payeeOf[key] == address(0)) _bind(key, msg.sender);
        IERC20(token).safeTransferFrom(msg.sender, address(this), bond);
    }

    /// Sends what `key` earns to `payee` from now on. Anybody may hand the signature in.
    function bind(bytes32 key, address payee, Signature calldata signature) external {
        if (payee == address(0)) revert ZeroPayee();
        _useSignature("assay/1/Bind\x00", key, payee, signature);
        _bind(key, payee);
    }

    // ---- the owner ----

    /// Ends probation. Anybody may say so.
    function activate(bytes32 key) external {
        Node storage node = nodes[key];
        if (node.state != State.Probation) revert WrongState(key, node.state);
        uint256 from = uint256(node.since) + probation;
        if (block.timestamp < from) revert TooEarly(from);
        if (node.bond < minBond) revert BondTooLow(minBond, node.bond);
        _active.push(key);
        node.place = uint32(_active.length);
        _setState(key, node, State.Active);
    }

    function topUp(bytes32 key, uint96 amount) external {
        Node storage node = _owned(key);
        if (node.state != State.Probation && node.state != State.Active) {
            revert WrongState(key, node.state);
        }
        node.bond += amount;
        emit BondRaised(key, amount, node.bond);
        IERC20(token).safeTransferFrom(msg.sender, address(this), amount);
    }

    function beginExit(bytes32 key) external {
        Node storage node = _owned(key);
        if (node.state == State.Exiting) revert WrongState(key, node.state);
        _leaveActive(node);
        node.since = uint40(block.timestamp);
        _setState(key, node, State.Exiting);
    }

    /// Pays the bond back after unbonding, and forgets the node.
    function withdraw(bytes32 key) external {
        Node storage node = _owned(key);
        if (node.state != State.Exiting) revert WrongState(key, node.state);
        uint256 from = uint256(node.since) + unbonding;
        if (block.timestamp < from) revert TooEarly(from);
        uint96 bond = node.bond;
        delete nodes[key];
        emit Withdrawn(key, msg.sender, bond);
        emit StateChanged(key, State.None);
        IERC20(token).safeTransfer(msg.sender, bond);
    }

    // ---- the ledger, the court, the timelock ----

    function slash(
        bytes32 key,
        uint96 amount,
        address reporter,
        uint16 reporterBps,
        bytes32 evidence
    ) external returns (uint96 taken) {
        if (msg.sender != court && msg.sender != ICreditToken(token).minter()) {
            revert NotSlasher(msg.sender);
        }
        if (reporterBps > WHOLE_BPS) revert RewardTooHigh(reporterBps);
        Node storage node = nodes[key];
        taken = amount < node.bond ? amount : node.bond;
        if (taken == 0) return 0;
        node.bond -= taken;
        if (node.bond < minBond && node.state != State.Exiting && node.state != State.Ejected) {
            _leaveActive(node);
            _setState(key, node, State.Ejected);
        }
        uint256 reward =
            reporter == address(0) ? 0 : uint256(taken) * reporterBps / WHOLE_BPS;
        emit Slashed(key, taken, node.bond, reporter, reward, evidence);
        ICreditToken(token).burn(taken - reward);
        if (reward != 0) IERC20(token).safeTransfer(reporter, reward);
    }

    /// Binds those who register, activate or are slashed from now on.
    function setMinBond(uint96 minBond_) external {
        if (msg.sender != timelock) revert NotTimelock(msg.sender);
        _setMinBond(minBond_);
    }

    // ---- reading ----

    function stateOf(bytes32 key) external view returns (State) {
        return nodes[key].state;
    }

    function ownerOf(bytes32 key) external view returns (address) {
        return nodes[key].owner;
    }

    function bondOf(bytes32 key) external view returns (uint96) {
        return nodes[key].bond;
    }

    function activeCount() external view returns (uint256) {
        return _active.length;
    }

    function activeAt(uint256 index) external view returns (bytes32) {
        return _active[index];
    }

    // ---- within ----

    function _useSignature(
        bytes memory domain,
        bytes32 key,
        address named,
        Signature calldata signature
    ) private {
        uint256 nonce = nonceOf[key]++;
        bytes memory message =
            abi.encodePacked(domain, block.chainid, address(this), named, nonce);
        if (!verifier.verify(key, message, signature)) revert BadSignature(key);
    }

    function _bind(bytes32 key, address payee) private {
        payeeOf[key] = payee;
        emit PayeeBound(key, payee);
    }

    function _owned(bytes32 key) private view returns (Node storage node) {
        node = nodes[key];
        if (node.owner != msg.sender) revert NotOwner(key, msg.sender);
    }

    function _setState(bytes32 key, Node storage node, State state) private {
        node.state = state;
        emit StateChanged(key, state);
    }

    /// The last of the list takes the place of the one who leaves.
    function _leaveActive(Node storage node) private {
        uint32 place = node.place;
        if (place == 0) return;
        bytes32 last = _active[_active.length - 1];
        _active[place - 1] = last;
        nodes[last].place = place;
        node.place = 0; // after the line above: the one who leaves may be the last
        _active.pop();
    }

    function _setMinBond(uint96 minBond_) private {
        if (minBond_ < minBondLow || minBond_ > minBondHigh) {
            revert BondOutOfCaps(minBondLow, minBondHigh, minBond_);
        }
        minBond = minBond_;
        emit MinBondSet(minBond_);
    }
}

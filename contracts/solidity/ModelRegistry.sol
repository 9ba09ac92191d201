// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title What governance says about models: which may be served, who shares, which prompts are refused.
/// @notice Rules:
/// - only the timelock changes anything, and each change raises `version` by one;
/// - a model that is not listed may be served iff `open`;
/// - of a model's price at most 4,000 bps go to at most 8 shares, none of them twice;
/// - the version of the moderation policy only rises.
contract ModelRegistry {
    /// `bps` ten-thousandths for an account in a role: 1 publisher, 2 adapter author, 3 data.
    struct Split {
        bytes32 account; // Ed25519 public key
        uint8 role;
        uint16 bps;
    }

    struct ModelRule {
        bytes32 model; // sha256 of its card's weights (protocol/spec)
        bool allowed;
        Split[] splits;
    }

    uint256 public constant MODELS_MAX = 4_096;
    uint256 public constant SHARES_MAX = 8;
    uint256 public constant SPLIT_BPS_MAX = 4_000;
    uint8 private constant FIRST_ROLE = 1;
    uint8 private constant LAST_ROLE = 3;

    address public immutable timelock;
    uint32 public version;
    bool public open;
    bytes32 public moderation; // sha256 of the signed policy; 0: none
    uint32 public policyVersion;
    ModelRule[] private _rules;
    mapping(bytes32 => uint256) private _places; // index in _rules, plus one

    event ModelSet(bytes32 indexed model, bool allowed, bytes splits, uint32 version);
    event ModelRemoved(bytes32 indexed model, uint32 version);
    event OpenSet(bool open, uint32 version);
    event ModerationSet(bytes32 indexed hash, uint32 policyVersion, uint32 version);

    error ZeroTimelock();
    error NotTimelock(address caller);
    error ZeroModel();
    error ModelNotListed(bytes32 model);
    error TooManyModels();
    error TooManyShares(uint256 given);
    error BadShare(uint256 index);
    error SplitTooHigh(uint256 bps);
    error PolicyVersionNotRaised(uint32 current, uint32 given);

    modifier onlyTimelock() {
        if (msg.sender != timelock) revert NotTimelock(msg.sender);
        _;
    }

    constructor(address timelock_, bool open_) {
        if (timelock_ == address(0)) revert ZeroTimelock();
        timelock = timelock_;
        open = open_;
        emit OpenSet(open_, 0);
    }

    /// Lists `model`, or replaces what is said of it.
    function setModel(bytes32 model, bool allowed, Split[] calldata splits) external onlyTimelock {
        if (model == bytes32(0)) revert ZeroModel();
        _check(splits);
        uint256 place = _places[model];
        if (place == 0) {
            if (_rules.length == MODELS_MAX) revert TooManyModels();
            _rules.push();
            place = _rules.length;
            _places[model] = place;
        }
        ModelRule storage rule = _rules[place - 1];
        rule.model = model;
        rule.allowed = allowed;
        delete rule.splits;
        for (uint256 i = 0; i < splits.length; ++i) rule.splits.push(splits[i]);
        emit ModelSet(model, allowed, abi.encode(splits), ++version);
    }

    /// Says nothing of `model` any more. The last of the list takes its place.
    function removeModel(bytes32 model) external onlyTimelock {
        uint256 place = _places[model];
        if (place == 0) revert ModelNotListed(model);
        uint256 last = _rules.length;
        if (place != last) {
            ModelRule storage moved = _rules[last - 1];
            _rules[place - 1] = moved;
            _places[moved.model] = place;
        }
        _rules.pop();
        delete _places[model];
        emit ModelRemoved(model, ++version);
    }

    /// Whether models that are not listed may be served.
    function setOpen(bool open_) external onlyTimelock {
        open = open_;
        emit OpenSet(open_, ++version);
    }

    /// The policy nodes refuse prompts by; a zero hash takes it away.
    function setModeration(bytes32 hash, uint32 policyVersion_) external onlyTimelock {
        if (policyVersion_ <= policyVersion) {
            revert PolicyVersionNotRaised(policyVersion, policyVersion_);
        }
        moderation = hash;
        policyVersion = policyVersion_;
        emit ModerationSet(hash, policyVersion_, ++version);
    }

    function mayServe(bytes32 model) external view returns (bool) {
        uint256 place = _places[model];
        return place == 0 ? open : _rules[place - 1].allowed;
    }

    function modelCount() external view returns (uint256) {
        return _rules.length;
    }

    function ruleOf(bytes32 model) external view returns (ModelRule memory) {
        uint256 place = _places[model];
        if (place == 0) revert ModelNotListed(model);
        return _rules[place - 1];
    }

    /// Up to `count` rules from `from` on, with the version they belong to: read on until `modelCount`,
    /// and start again if the version differs between two answers.
    function rules(uint256 from, uint256 count)
        external
        view
        returns (uint32 version_, ModelRule[] memory page)
    {
        uint256 length = _rules.length;
        uint256 end = from >= length ? from : count < length - from ? from + count : length;
        page = new ModelRule[](end - from);
        for (uint256 i = from; i < end; ++i) page[i - from] = _rules[i];
        return (version, page);
    }

    function _check(Split[] calldata splits) private pure {
        if (splits.length > SHARES_MAX) revert TooManyShares(splits.length);
        uint256 sum = 0;
        for (uint256 i = 0; i < splits.length; ++i) {
            Split calldata share = splits[i];
            if (share.account == bytes32(0) || share.bps == 0) revert BadShare(i);
            if (share.role < FIRST_ROLE || share.role > LAST_ROLE) revert BadShare(i);
            for (uint256 j = 0; j < i; ++j) {
                if (splits[j].account == share.account && splits[j].role == share.role) {
                    revert BadShare(i);
                }
            }
            sum += share.bps;
        }
        if (sum > SPLIT_BPS_MAX) revert SplitTooHigh(sum);
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ICreditToken} from "./Interfaces.sol";

/// @title Claimed credit. One unit is one micro-credit.
/// @notice Rules: only the minter mints, which is the ledger of the day; only the timelock names
/// another one; a minter that was replaced never mints again, as the next ledger pays what is left.
contract CreditToken is ERC20, ICreditToken {
    address public immutable timelock;
    address public minter;
    mapping(address => bool) public retired;

    event MinterSet(address indexed previous, address indexed minter);

    error NotMinter(address caller);
    error NotTimelock(address caller);
    error ZeroMinter();
    error MinterRetired(address minter);

    constructor(address minter_, address timelock_) ERC20("Assay Credit", "CREDIT") {
        if (minter_ == address(0)) revert ZeroMinter();
        minter = minter_;
        timelock = timelock_;
        emit MinterSet(address(0), minter_);
    }

    function decimals() public pure override returns (uint8) {
        return 6;
    }

    function mint(address to, uint256 amount) external {
        if (msg.sender != minter) revert NotMinter(msg.sender);
        _mint(to, amount);
    }

    /// Destroys the sender's own.
    function burn(uint256 amount) external {
        _burn(msg.sender, amount);
    }

    function setMinter(address next) external {
        if (msg.sender != timelock) revert NotTimelock(msg.sender);
        if (next == address(0)) revert ZeroMinter();
        address previous = minter;
        if (next == previous || retired[next]) revert MinterRetired(next);
        retired[previous] = true;
        minter = next;
        emit MinterSet(previous, next);
    }
}

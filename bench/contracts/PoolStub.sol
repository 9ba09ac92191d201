// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

interface IWorkValidator {
    function submitWork(
        uint256 domain,
        uint256 pool,
        address provider,
        address node,
        bytes calldata data
    ) external returns (bool, uint256);
}

interface IWorkRewards {
    function submitWork(address node, uint256 units) external;
}

/// @title Stands in for Prime Intellect's pool and registries, doing none of their own work: what is
/// measured through it is a floor.
contract PoolStub {
    IWorkValidator public validator;
    IWorkRewards public rewards;

    function wire(IWorkValidator validator_, IWorkRewards rewards_) external {
        validator = validator_;
        rewards = rewards_;
    }

    function submitWork(uint256 pool, address node, bytes calldata data) external {
        (, uint256 units) = validator.submitWork(1, pool, msg.sender, node, data);
        rewards.submitWork(node, units);
    }

    function getRewardToken() external view returns (address) {
        return address(this);
    }

    function getRoleMember(bytes32, uint256) external view returns (address) {
        return address(this);
    }

    function isNodeInPool(uint256, address) external pure returns (bool) {
        return true;
    }
}

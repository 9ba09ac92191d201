// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title What recording each job by itself costs at the least: no job twice, and who earned what.
contract JobRecord {
    mapping(bytes32 => uint256) public creditOf;
    mapping(bytes32 => bool) private _recorded;

    error Recorded(bytes32 job);

    function record(bytes32 job, bytes32 account, uint256 amount) external {
        if (_recorded[job]) revert Recorded(job);
        _recorded[job] = true;
        creditOf[account] += amount;
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Signature} from "../../../contracts/solidity/Interfaces.sol";

/// What forge and halmos understand of the cheat codes.
interface Vm {
    function warp(uint256 timestamp) external;
    function prank(address sender) external;
    function assume(bool condition) external pure;
}

Vm constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

/// Stands in for Ed25519Verifier: a signature is good whose `s` is 1.
contract EasyVerifier {
    function verify(bytes32, bytes calldata, Signature calldata signature)
        external
        pure
        returns (bool)
    {
        return uint256(signature.s) == 1;
    }
}

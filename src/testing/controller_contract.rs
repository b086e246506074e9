//! The contract of [`VmController`], as a test.

use crate::failback::vm::{VmController, try_controller};

/// Holds each sentence of the contract of [`VmController`] against a VM that exists, is off and may
/// run; in the end it is so again.
///
/// # Panics
/// Where the controller breaks the contract.
pub fn controller_contract(controller: &dyn VmController) {
    try_controller(controller, &mut |sentence, held| {
        if let Err(error) = held {
            panic!("{sentence}: {error}");
        }
    });
}

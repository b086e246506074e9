//! What tests of this crate, and of its users, are made of.

#[cfg(feature = "failback")]
mod controller_contract;
mod storage_contract;

pub use crate::storage::fault;
#[cfg(feature = "failback")]
pub use controller_contract::controller_contract;
pub use storage_contract::storage_contract;

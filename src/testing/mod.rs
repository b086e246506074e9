//! What tests of this crate, and of its users, are made of.

mod storage_contract;

pub use crate::storage::fault;
pub use storage_contract::storage_contract;

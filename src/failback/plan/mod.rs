//! Plan files: what an operator writes down about a failback, in TOML.
//!
//! ```
//! use diskdelta::failback::plan::Plan;
//!
//! let plan = Plan::parse(
//!     r#"
//!     [job]
//!     name = "shop"
//!     active = "recovery"
//!
//!     [primary]
//!     host = "hv1.example"
//!     controller = { kind = "commands", program = ["/opt/failback/hyperv"] }
//!
//!     [recovery]
//!     host = "cloud.example"
//!     controller = { kind = "commands", program = ["/opt/failback/cloud"] }
//!
//!     [[group]]
//!     name = "databases"
//!
//!     [[group.vm]]
//!     name = "db1"
//!
//!     [[group.vm.disk]]
//!     identity = "db1-system"
//!     primary = "/vm/db1.vhdx"
//!     recovery = "/mnt/cloud/db1.raw"
//!     "#,
//! )?;
//! assert_eq!(plan.groups[0].vms[0].disks[0].primary.to_string(), "/vm/db1.vhdx");
//! # Ok::<(), diskdelta::Error>(())
//! ```

mod builder;
mod choice;
mod connect;
mod controllers;
mod encryption;
mod file;
mod places;
mod types;
mod validate;
mod values;

pub use builder::PlanBuilder;
pub use connect::{SiteConnectOptions, TlsFiles};
pub use controllers::Controller;
pub use encryption::Encryption;
pub(in crate::failback) use types::path_at;
pub use types::{Direction, Disk, Group, Plan, Site, SiteName, Vm};
pub(in crate::failback) use values::is_name;

//! How the hosts of addresses are looked up that others name.

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::location::is_link_local;

/// Leaves addresses of the link alone out, whatever name leads to them.
#[derive(Debug)]
pub(super) struct BeyondLink;

impl Resolver for BeyondLink {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let all = DefaultResolver::default().resolve(uri, config, timeout)?;
        let mut kept = self.empty();
        for address in all.iter().filter(|it| !is_link_local(it.ip())) {
            kept.push(*address);
        }
        match kept.is_empty() {
            true => Err(Error::HostNotFound),
            false => Ok(kept),
        }
    }
}

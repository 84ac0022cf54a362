//! Streams of events that are followed now, counted by tenant, so that one tenant cannot take every connection.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use protocol::ids::TenantId;

/// Who follows how many.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    most: u32,
    by_tenant: Arc<Mutex<HashMap<TenantId, u32>>>,
}

/// One of them; over when it is dropped.
#[derive(Debug)]
pub(crate) struct Following {
    streams: Streams,
    tenant: TenantId,
}

impl Streams {
    /// At most so many a tenant.
    pub(crate) fn new(most: u32) -> Self {
        Self { most, by_tenant: Arc::default() }
    }

    pub(crate) fn most(&self) -> u32 {
        self.most
    }

    /// One more of this tenant; `None` at the bound.
    pub(crate) fn begin(&self, tenant: &TenantId) -> Option<Following> {
        let mut all = self.by_tenant.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(tenant.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Following { streams: self.clone(), tenant: tenant.clone() })
    }

    /// How many there are, over all tenants.
    pub(crate) fn count(&self) -> u64 {
        let all = self.by_tenant.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().copied().map(u64::from).sum()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut all = self.streams.by_tenant.lock().unwrap_or_else(PoisonError::into_inner);
        // A tenant without streams leaves nothing behind: tenants come without end.
        if let Some(count) = all.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tenant_has_its_own_bound_and_what_ended_is_free_again() {
        let streams = Streams::new(1);
        let (ann, bob): (TenantId, TenantId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let first = streams.begin(&ann).unwrap();
        assert!(streams.begin(&ann).is_none());
        let other = streams.begin(&bob).unwrap();
        assert_eq!(streams.count(), 2);
        drop((first, other));
        assert_eq!(streams.count(), 0);
        assert!(streams.by_tenant.lock().unwrap().is_empty());
        streams.begin(&ann).unwrap();
    }
}

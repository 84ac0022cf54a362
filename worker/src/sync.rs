//! Locks that a panic elsewhere does not poison: what they guard is changed in one step.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Never held over an await.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

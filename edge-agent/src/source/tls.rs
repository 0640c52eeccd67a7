//! The cryptography of TLS. Two implementations are linked (a driver brings the second), so rustls
//! does not choose by itself.

use std::sync::Once;

/// Makes ring the cryptography of this process. Whoever opens a TLS connection by a library that
/// takes the process's choice calls it before; again does nothing.
pub fn use_ring() {
    static ONCE: Once = Once::new();
    // An error means that the process has chosen already.
    ONCE.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

//! Certificates for test servers: a CA per test, and leaves that are valid, expired or for another name.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate authority that a test trusts through `AGENTSECRETS_UPSTREAM_CA`.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A server's certificate chain and key.
pub(crate) struct Leaf {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "AgentSecrets test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    /// The CA certificate.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A client certificate for `name` and its key, in one PEM text.
    pub(crate) fn client(&self, name: &str) -> String {
        let (certificate, key) = self.pem_leaf(&[name.to_owned()]);
        certificate + &key
    }

    /// A leaf below an intermediate CA. The chain has an unusual order: leaf, root (which no server needs to
    /// send), intermediate.
    pub(crate) fn leaf_with_intermediate(&self, names: &[String]) -> Leaf {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "AgentSecrets test authority between");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let between = KeyPair::generate().unwrap();
        let between = CertifiedIssuer::signed_by(params, between, &self.issuer).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(names.to_vec()).unwrap().signed_by(&key, &between).unwrap();
        Leaf {
            chain: vec![leaf.der().clone(), self.issuer.der().clone(), between.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }

    /// Roots for a server to verify client certificates.
    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }

    /// A certificate for `names` and its key as PEM, for external servers.
    pub(crate) fn pem_leaf(&self, names: &[String]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// A leaf for `names` (DNS names or addresses), valid now or expired long ago.
    pub(crate) fn leaf(&self, names: &[String], expired: bool) -> Leaf {
        let mut params = CertificateParams::new(names.to_vec()).unwrap();
        if expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2020, 2, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }
}

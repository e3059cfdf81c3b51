//! Certificates of servers that do not exist: an authority of each test's own, and leaves that are
//! right, expired or somebody else's.

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
    /// A new one.
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "AgentSecrets test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    /// Its certificate, for those who are to trust it.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for a client called `name`, and its key, in one PEM text.
    pub(crate) fn client(&self, name: &str) -> String {
        let (certificate, key) = self.pem_leaf(&[name.to_owned()]);
        certificate + &key
    }

    /// Those of a server whose leaf stands under an authority between: first the leaf, then ours, which no
    /// server needs to send, then the one between.
    pub(crate) fn leaf_below(&self, names: &[String]) -> Leaf {
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

    /// What a server checks its clients' certificates with.
    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }

    /// A certificate for `names` and its key, in PEM, for servers that are no part of these tests.
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

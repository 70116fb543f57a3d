//! What the store knows besides identities: itself, and the domains that accounts are in.

use super::{PoolError, Store};
use crate::domain::Domain;
use ramet_proto::domain::DomainAccount;

/// The name of the setting that identifies the store.
const ID: &str = "store id";

impl Store {
    /// Names this store among all that may have accounts in one directory. Made by whoever asks first.
    pub async fn id(&self) -> Result<&str, PoolError> {
        let id = self.id.get_or_try_init(|| async {
            sqlx::query("INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(ID)
                .bind(uuid::Uuid::new_v4().to_string())
                .execute(self.db())
                .await?;
            let id = sqlx::query_scalar("SELECT value FROM settings WHERE name = $1").bind(ID);
            Ok::<String, PoolError>(id.fetch_one(self.db()).await?)
        });
        Ok(id.await?)
    }

    /// Keeps what a domain controller has said of its domain, for those whose accounts it has made.
    pub async fn keep_domain(&self, domain: &Domain) -> Result<(), PoolError> {
        let form =
            serde_json::to_string(domain).map_err(|error| PoolError::Damaged { what: error.to_string() })?;
        sqlx::query(
            "INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(setting(&domain.realm, &domain.controller.name))
        .bind(form)
        .execute(self.db())
        .await?;
        Ok(())
    }

    /// The domain that `account` is in, as the controller that made it has described it.
    pub async fn domain_of(&self, account: &DomainAccount) -> Result<Domain, PoolError> {
        let damaged = |what: String| PoolError::Damaged { what: format!("{}: {what}", account.realm) };
        let form: Option<String> = sqlx::query_scalar("SELECT value FROM settings WHERE name = $1")
            .bind(setting(&account.realm, &account.dc))
            .fetch_optional(self.db())
            .await?;
        let form =
            form.ok_or_else(|| damaged(format!("nothing is known of its controller {}", account.dc)))?;
        serde_json::from_str(&form).map_err(|error| damaged(error.to_string()))
    }
}

fn setting(realm: &impl ToString, controller: &impl ToString) -> String {
    format!("domain {} {}", realm.to_string(), controller.to_string().to_ascii_lowercase())
}

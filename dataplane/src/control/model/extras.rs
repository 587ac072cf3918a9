//! What LVS does not have: local addresses, options of a service, settings as requests.

use std::net::IpAddr;
use std::sync::Arc;

use control::{Errno, HashTarget, Refusal, ServiceKey, ServiceOptions, Settings};

use super::undo::{Transaction, Undo};
use super::uses::Use;
use super::{LOCAL_ADDRESSES_MAX, Model, name, refuse, rules};
use crate::update::{LocalAddress, ServiceId, Update};

impl Model {
    pub(super) fn add_local_address(
        &mut self,
        key: &ServiceKey,
        address: IpAddr,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        let id = self.find(key)?;
        rules::local_address(address)?;
        let addresses = &self.services.get(id.0).local_addresses;
        if addresses.iter().any(|local| local.address == address) {
            let detail = format!("service {} has local address {address} already", name(key));
            return Err(refuse(Errno::Eexist, detail));
        }
        if addresses.len() >= LOCAL_ADDRESSES_MAX {
            let detail = format!(
                "service {} has {LOCAL_ADDRESSES_MAX} local addresses already, no more is right",
                name(key)
            );
            return Err(refuse(Errno::Enomem, detail));
        }
        self.uses.allow(address, Use::Local)?;
        self.uses.add(address, Use::Local);
        let index = addresses.len();
        let local = self.local(address);
        self.services.get_mut(id.0).local_addresses.push(local);
        done.undo.push(Undo::LocalAdded(id, index));
        done.updates.push(self.local_addresses(id));
        Ok(())
    }

    pub(super) fn delete_local_address(
        &mut self,
        key: &ServiceKey,
        address: IpAddr,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        let id = self.find(key)?;
        let addresses = &mut self.services.get_mut(id.0).local_addresses;
        let Some(index) = addresses.iter().position(|local| local.address == address) else {
            let detail = format!("service {} has no local address {address}", name(key));
            return Err(refuse(Errno::Enoent, detail));
        };
        let local = addresses.remove(index);
        self.uses.remove(address, Use::Local);
        done.undo.push(Undo::LocalDeleted(id, index, local));
        done.updates.push(self.local_addresses(id));
        Ok(())
    }

    /// Counted where it is counted already, if it is.
    pub(super) fn local(&mut self, address: IpAddr) -> LocalAddress {
        let workers = self.pages.len();
        let known = self.locals.get(&address);
        if let Some(pages) = known {
            let pages = Arc::clone(pages);
            return LocalAddress { address, pages };
        }
        let new = LocalAddress::new(address, workers);
        self.locals.insert(address, Arc::clone(&new.pages));
        new
    }

    fn local_addresses(&self, id: ServiceId) -> Update {
        let addresses = self.services.get(id.0).local_addresses.clone();
        Update::SetLocalAddresses { id, addresses }
    }

    pub(super) fn set_options(
        &mut self,
        key: &ServiceKey,
        options: ServiceOptions,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        let id = self.find(key)?;
        rules::options(key, options)?;
        let head = self.head(id);
        if head.options != options {
            done.undo.push(Undo::Head(id, *head));
            head.options = options;
            done.update(id, Update::SetOptions { id, options });
        }
        Ok(())
    }

    pub(super) fn set_hash_target(
        &mut self,
        key: &ServiceKey,
        hash_target: HashTarget,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        let id = self.find(key)?;
        let options = ServiceOptions {
            hash_target,
            ..self.head(id).options
        };
        self.set_options(key, options, done)
    }

    pub(super) fn set_settings(
        &mut self,
        settings: Settings,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        settings
            .check()
            .map_err(|detail| refuse(Errno::Einval, detail))?;
        if self.settings != settings {
            done.undo.push(Undo::Settings(self.settings));
            self.settings = settings;
            done.updates.push(Update::SetSettings(settings));
        }
        Ok(())
    }
}

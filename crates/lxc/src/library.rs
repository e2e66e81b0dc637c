//! The loaded library and its plain functions.

use std::ffi::{CStr, CString, c_char};
use std::mem::ManuallyDrop;

use libloading::Library;

use crate::{Error, sys};

/// liblxc in this process. Loaded once and never unloaded: its atexit handlers outlive us.
#[derive(Debug)]
pub struct Liblxc {
    library: ManuallyDrop<Library>,
}

impl Liblxc {
    /// Loads `liblxc.so.1`.
    ///
    /// # Errors
    /// [`Error::Load`] when it is not installed or lacks a symbol that every supported release has.
    pub fn load() -> Result<Self, Error> {
        // SAFETY: liblxc's constructors only set up its own static tables (read in its source), and the
        // library stays loaded for as long as any pointer into it lives.
        let library = unsafe { Library::new("liblxc.so.1") }.map_err(Error::Load)?;
        Ok(Self { library: ManuallyDrop::new(library) })
    }

    /// The release in use, for instance `5.0.2`.
    #[must_use]
    pub fn version(&self) -> String {
        let Ok(version) = self.symbol::<sys::lxc_get_version_fn>(c"lxc_get_version") else {
            return "unknown".into();
        };
        let Some(version) = version else { return "unknown".into() };
        // SAFETY: the function takes nothing and returns a static string.
        let text = unsafe { version() };
        // SAFETY: `text` is a NUL-terminated string in liblxc's read-only data.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }

    /// Whether this liblxc knows a configuration key. Sub-keys (`lxc.prlimit.nofile`) are unknown to the
    /// function even where `set_config_item` takes them: ask for the parent.
    #[must_use]
    pub fn knows_key(&self, key: &str) -> bool {
        self.ask::<sys::lxc_config_item_is_supported_fn>(c"lxc_config_item_is_supported", key, |f| f)
    }

    /// Whether this liblxc has an API extension.
    #[must_use]
    pub fn has_extension(&self, extension: &str) -> bool {
        self.ask::<sys::lxc_has_api_extension_fn>(c"lxc_has_api_extension", extension, |f| f)
    }

    fn ask<F: Copy>(
        &self,
        name: &CStr,
        question: &str,
        as_fn: fn(F) -> Option<unsafe extern "C" fn(*const c_char) -> bool>,
    ) -> bool {
        let Ok(question) = CString::new(question) else { return false };
        let Some(function) = self.symbol::<F>(name).ok().and_then(as_fn) else { return false };
        // SAFETY: the argument is NUL-terminated and outlives the call; the function only reads it.
        unsafe { function(question.as_ptr()) }
    }

    /// Looks up a function; `F` is one of the function types generated beside its C declaration.
    pub(crate) fn symbol<F: Copy>(&self, name: &CStr) -> Result<F, Error> {
        // SAFETY: every caller pairs the name with the type that `sys.rs` was generated with for it.
        let symbol = unsafe { self.library.get::<F>(name.to_bytes_with_nul()) }.map_err(Error::Load)?;
        Ok(*symbol)
    }
}

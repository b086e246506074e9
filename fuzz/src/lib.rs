//! The fuzz binaries: what they run is in [`cases`], which the crate's ordinary tests run too.

pub mod alloc;
pub mod cases;

pub use libfuzzer_sys;

/// Makes a fuzz binary of the target of that name.
#[macro_export]
macro_rules! fuzz {
    ($name:ident) => {
        #[global_allocator]
        static COUNTING: $crate::alloc::Counting = $crate::alloc::Counting;

        $crate::libfuzzer_sys::fuzz_target!(|data: &[u8]| {
            $crate::cases::run(stringify!($name), data);
        });
    };
}

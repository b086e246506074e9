//! The `with_` methods of options.

/// One method for each option, which replaces its field.
macro_rules! setters {
    ($type:ident: $($(#[$doc:meta])* $name:ident, $field:ident: $of:ty;)*) => {
        impl $type {
            $($(#[$doc])*
            #[must_use]
            pub fn $name(mut self, $field: $of) -> Self {
                self.$field = $field;
                self
            })*
        }
    };
}

pub(crate) use setters;

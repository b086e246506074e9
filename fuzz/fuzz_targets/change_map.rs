#![no_main]
diskdelta_fuzz::fuzz!(change_map);

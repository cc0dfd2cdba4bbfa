"""The wire: `.proto` files, generated modules, the shared vocabulary (types), converters and the error table."""

"""Programs around the plugin: demo, server, installation."""

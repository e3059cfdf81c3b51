"""An independent keychain client: prints an item's value, or creates one."""
import sys

import secretstorage

attributes = {"service": "AgentSecrets", "username": sys.argv[1]}
bus = secretstorage.dbus_init()
if len(sys.argv) == 3:
    secretstorage.get_default_collection(bus).create_item("made by another", attributes, sys.argv[2].encode())
else:
    (item,) = secretstorage.search_items(bus, attributes)
    sys.stdout.buffer.write(item.get_secret())

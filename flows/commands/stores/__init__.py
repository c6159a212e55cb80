"""Commands on stores and nights that are there: none of them starts a flow.

browse_command   `browse`: all nights of a root, and every row, in a browser
store_commands   `show`, `report`, `verify`: one store
compare_command  `compare`: two stores of the same images
export_command   `export`: rows of a store for other programs
pack_command     `pack`, `unpack`: a night as one file
publish_command  `publish`: a night copied to an address
"""

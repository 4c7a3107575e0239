"""A module that needs what nobody has installed."""

import no_such_package

NOTHING = no_such_package.NOTHING

"""`python -m bigtrain` is the command `bigtrain`."""

from bigtrain.cli.main import main

raise SystemExit(main())

"""What `bigtrain doctor` looks at: a check is a function from what is planned to what it finds; `CHECKS` lists them."""

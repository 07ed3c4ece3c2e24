"""`python -m nutclf VERB`."""

from nutclf.cli import main

main()

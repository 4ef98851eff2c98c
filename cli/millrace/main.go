// Command millrace is a Kafka-compatible broker and its command line.
package main

import (
	"os"

	"millrace/cli"
)

func main() { os.Exit(cli.Main()) }

package cli

import urfave "github.com/urfave/cli/v2"

func segmentCommand() *urfave.Command {
	return &urfave.Command{
		Name:    "segment",
		Aliases: []string{"segments"},
		Usage:   "look into the files of a log; needs no broker",
		Subcommands: []*urfave.Command{
			segmentDumpCommand(),
			segmentVerifyCommand(),
		},
	}
}

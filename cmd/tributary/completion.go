package main

import (
	"github.com/alecthomas/kong"
	kongcompletion "github.com/jotaen/kong-completion"
)

// CompletionCmd prints what a shell runs to complete our commands: it then asks this program, in COMP_LINE, how a line may
// go on.
type CompletionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"The shell: bash, zsh or fish."`
}

// Help is the command's long help.
func (*CompletionCmd) Help() string {
	return `What is printed is for the shell's own startup file, or for a session:

    source <(tributary completion bash)        # in ~/.bashrc
    source <(tributary completion zsh)         # in ~/.zshrc
    tributary completion fish | source         # in ~/.config/fish/config.fish`
}

// Run prints.
func (c *CompletionCmd) Run(ctx *kong.Context) error {
	return (&kongcompletion.Completion{Shell: c.Shell, Code: true}).Run(ctx)
}

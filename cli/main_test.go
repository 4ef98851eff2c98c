package cli

import (
	"testing"

	"millrace/cli/clitest"
)

func TestMain(m *testing.M) { clitest.Main(m) }

// Package testcluster runs nodes as processes, for tests: it builds the program once, starts
// nodes on ports and in folders of their own, says when they serve, kills, pauses, restarts
// and stops them, and shows their logs when a test fails. Nothing of it is left running,
// however a test or its process ends. A test that needs a broker but no process of it takes
// millrace/brokertest, which is faster.
//
//	func TestMain(m *testing.M) { testcluster.Main(m) }
//
//	func TestLeaderDies(t *testing.T) {
//		c := testcluster.New(t, testcluster.Program(t), t.TempDir(), 3, nil)
//		c.Start()        // founds the cluster, and waits until all nodes serve
//		c.AwaitHealthy() // every partition has its replicas
//		c.Nodes[0].Kill()
//		…
//		c.Start() // those that do not run
//	}
//
// What is special stays with the suite that needs it, and is put together with this by what
// the function says that New calls for each node before anything runs: another
// [Node.Address], as in test/faults, where nodes have network namespaces of their own, with a
// [Host] that enters them; another [Node.Data], on a volume that fills up; more
// [Node.Args], a config file's. A [Process] is anything else that must not outlive a test.
//
// Package cli/clitest has what tests of commands want besides, and test/faults and
// test/conformance have their clients and what they ask them. The harness of test/peers is
// its own: that module measures other systems as well and so starts all of them alike.
package testcluster

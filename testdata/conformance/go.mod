module millrace/conformance

go 1.26.8

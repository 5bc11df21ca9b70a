package main

import "fmt"

func main() {
	fmt.Println("the second build")
}
